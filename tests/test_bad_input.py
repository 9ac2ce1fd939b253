"""What a user can get wrong, over all recipes: one line that says what to do, and the right exit
code.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from pathlib import Path

import netCDF4
import numpy as np
import pytest
import torch
import xarray as xr
from nnheads.recipes import _app as cli
from safetensors.torch import load_file, save_file

CLEAN = "When Mary and John went to the market, John gave the book to"
CORRUPTED = "When Mary and John went to the market, Mary gave the book to"
PAIR = {"clean": CLEAN, "corrupted": CORRUPTED, "answer": "Mary", "wrong": "John"}
LONG = "When Mary and John went to the market, " + "long " * 130 + "John gave the book to"
LONG_CORRUPTED = LONG.replace("John gave", "Mary gave")


def models(folder: Path, sound: Path) -> dict[str, Path]:
    """Model folders, each with one thing wrong."""
    places = {name: folder / name for name in ("empty", "mamba", "half_config", "no_family")}
    configs = {
        "mamba": '{"model_type": "mamba"}',
        "half_config": '{"model_type": "lla',
        "no_family": "{}",
    }
    for name, place in places.items():
        place.mkdir()
        if name in configs:
            (place / "config.json").write_text(configs[name])
    copies = (
        "truncated",
        "garbage",
        "no_tokenizer",
        "half_tokenizer",
        "no_weights",
        "no_head",
        "nan",
    )
    for name in copies:
        places[name] = Path(shutil.copytree(sound, folder / name))
    weights = {name: places[name] / "model.safetensors" for name in copies}
    weights["truncated"].write_bytes(weights["truncated"].read_bytes()[:-1000])
    weights["garbage"].write_bytes(b"no weights at all")
    weights["no_weights"].unlink()
    for file in places["no_tokenizer"].glob("tokenizer*"):
        file.unlink()
    (places["half_tokenizer"] / "tokenizer.json").write_text('{"version": "1.0", "mod')
    tensors = load_file(weights["no_head"])
    some = {
        name: tensor for name, tensor in tensors.items() if "layers.1.self_attn.q_proj" not in name
    }
    save_file(some, weights["no_head"], {"format": "pt"})
    save_file(
        {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()},
        weights["nan"],
        {"format": "pt"},
    )
    return places


def prompts(folder: Path) -> dict[str, Path]:
    """Prompt files, each with one thing wrong."""

    def lines(*changes: dict) -> bytes:
        return "".join(json.dumps({**PAIR, **change}) + "\n" for change in changes).encode()

    whole = lines({})
    files = {
        "nothing.jsonl": b"",
        "binary.jsonl": bytes(range(256)),
        "half.jsonl": whole + b'{"clean": "When',
        "list.jsonl": b"[]",
        "third.jsonl": whole * 2 + b'{"clean": "a", "corrupted": "b", "answer": "c"}\n',
        "bare.csv": b"a,b,c,d\ne,f,g,h\n",
        "header.csv": b"clean,corrupted,answer,wrong\n",
        "blank.jsonl": lines({"clean": " "}),
        "unequal.jsonl": lines({"corrupted": CORRUPTED.replace("to the market", "to market")}),
        "split.jsonl": lines({"wrong": "Zebulon", "clean": CLEAN.replace("John", "Zebulon")}),
        "same.jsonl": lines({"wrong": "Mary"}),
        "alike.jsonl": lines({"corrupted": CLEAN}),
        "shapeless.jsonl": lines({"clean": "Mary gave the book to"}),
        "long.jsonl": lines({"clean": LONG, "corrupted": LONG_CORRUPTED}),
        "good.jsonl": whole,
        "backwards.jsonl": lines({"answer": "John", "wrong": "Mary"}),
    }
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return {name.replace(".", "_"): folder / name for name in files}


def stimuli(folder: Path) -> dict[str, Path]:
    """Spans, needles and haystacks, each with one thing wrong."""
    span = {"kind": "giver", "query": "to", "key": "Mary"}
    good = {"text": "Mary gave the book to John", "spans": [span]}
    spans = {
        "future": {**good, "spans": [{**span, "query": "Mary", "key": "to"}]},
        "path": {**good, "spans": [{**span, "kind": "../giver"}]},
        "stretched": {**good, "text": "Mary gave the " + "book " * 130 + "to John"},
        "spanned": good,
    }
    needles = {
        "unanswered": {
            "needle": "the code of Mary is green .",
            "question": "what ?",
            "answer": "blue",
        },
        "endless": {
            "needle": "the code " * 70 + "is green .",
            "question": "what ?",
            "answer": "green",
        },
    }
    places = {}
    for name, record in {**spans, **needles}.items():
        places[name] = folder / f"{name}.jsonl"
        places[name].write_text(json.dumps(record) + "\n")
    for name, content in (("no_text", None), ("no_letters", bytes(range(256)))):
        places[name] = folder / name
        places[name].mkdir()
        if content:
            (places[name] / "a.txt").write_bytes(content)
    return places


def tasks(folder: Path) -> dict[str, Path]:
    """A task that no random model does."""
    pairs = [
        {"task": "next", "input": str(number), "output": str(number + 1)} for number in range(20)
    ]
    (folder / "counting.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    return {"counting": folder / "counting.jsonl"}


def rankings(folder: Path) -> dict[str, Path]:
    """Statistics of heads that no model of these tests can be ranked by."""
    places = {}
    for name, value in (("ranked", 0.5), ("unranked", np.nan)):
        values = xr.DataArray(
            np.full((5, 2), value), {"layer": range(5), "head": range(2)}, ("layer", "head")
        )
        places[name] = folder / f"{name}.nc"
        values.to_dataset(name="effect").to_netcdf(places[name])
    return places


def interventions(folder: Path) -> dict[str, Path]:
    """Saved interventions that nothing can be steered with, and a few texts that are."""
    from nnheads.interventions import Edit, Interchange, Intervention, Zero
    from nnheads.interventions.files import save

    (folder / "several.txt").write_text("Mary and John\n" * 6)
    (folder / "one_word.txt").write_text("Mary\n")
    return {
        "sourced": save(Intervention(Edit("z", Interchange(), layer=0)), folder / "sourced"),
        "zeroed": save(Intervention(Edit("z", Zero(), layer=7)), folder / "zeroed"),
        "several": folder / "several.txt",
        "one_word": folder / "one_word.txt",
    }


def swaps(folder: Path) -> dict[str, Path]:
    """Counterfactual pairs, too few of them, and some with an answer that the tokenizer does not
    know.
    """
    names = ("Mary", "John", "Anna", "Leo")
    rows = [
        {"base": f"the code of {one}", "source": f"the code of {other}", "answer": other}
        for one in names
        for other in names
        if one != other
    ]
    files = {
        "swaps": rows,
        "few_swaps": rows[:2],
        "odd_swaps": [{**row, "answer": "unheard"} for row in rows],
    }
    for name, own in files.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, own)))
    return {name: folder / f"{name}.jsonl" for name in files}


def truths(folder: Path) -> dict[str, Path]:
    """Questions that a model of these tests can be asked, too few of them, and edits of them."""
    from nnheads.interventions import DECODE, Add, Edit, Intervention, index
    from nnheads.interventions.files import save
    from nnheads.truth.directions import FITTED, question_ids

    names = ("Mary", "John", "Anna", "Leo", "Paul", "Max", "Rita", "Tom", "James", "Dan")
    rows = [
        {
            "question": f"what is the code of {one}",
            "true": ["4", "5 6"],
            "false": ["7"],
            "best": "4",
        }
        for one in names
    ]
    for name, own in (("asked", rows), ("asked_little", rows[:1])):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, own)))
    seen = {FITTED: torch.from_numpy(question_ids([rows[0]["question"]]))}
    edits = {
        "leaked": Edit("z", Add(1.0), layer=0),
        "late": Edit("z", Add(1.0), layer=0, at=index(-1)),
        "written": Edit("z", Add(1.0), layer=0, at=DECODE),
        "elsewhere": Edit("mlp_out", Add(1.0), layer=0),
    }
    saved = {
        name: save(Intervention(edit, tensors=seen if name == "leaked" else {}), folder / name)
        for name, edit in edits.items()
    }
    return {"asked": folder / "asked.jsonl", "asked_little": folder / "asked_little.jsonl", **saved}


def head_lists(folder: Path) -> dict[str, Path]:
    """Scores of a few heads, as another tool publishes them."""
    (folder / "published.json").write_text(
        '{"2-4": [1.0, 0.9], "1-0": [0.8], "1-1": [0.5], "0-3": [0.0]}'
    )
    return {"list": folder / "published.json"}


def reported(folder: Path) -> dict[str, Path]:
    """Folders of runs, each with one thing wrong."""
    record = {"recipe": "ioi", "arguments": {}, "complete": True, "files": ["heads.nc"]}
    for name, own in {
        "unrecorded": "[]",
        "unread": record,
        "headless": {**record, "files": []},
    }.items():
        (folder / name).mkdir()
        (folder / name / "run.json").write_text(own if isinstance(own, str) else json.dumps(own))
    (folder / "unread" / "heads.nc").write_bytes(b"nothing")
    return {name: folder / name for name in ("unrecorded", "unread", "headless")}


def odd_files(folder: Path) -> dict[str, Path]:
    """Files that hang, fill the memory, or hold what no text is."""
    needle = '{"needle": "a \\ud800 b", "question": "q", "answer": "a"}'
    (folder / "surrogate.jsonl").write_text(needle)
    (folder / "four_texts.txt").write_text("one\ntwo\nthree\nfour\n")
    (folder / "pipe").mkdir()
    os.mkfifo(folder / "pipe" / "a.txt")
    with netCDF4.Dataset(folder / "bomb.nc", "w") as bomb:
        bomb.createDimension("layer", 40_000)
        bomb.createDimension("head", 40_000)
        bomb.createVariable("score", "f8", ("layer", "head"), zlib=True, chunksizes=(4000, 4000))
    return {path.stem: path for path in folder.iterdir()}


def outputs(folder: Path, model: str) -> dict[str, Path]:
    """Results folders that are taken."""
    records = {
        "another": '{"arguments": {"seed": 5}, "complete": true}',
        "corrupt": '{"arguments": ',
    }
    for name, record in records.items():
        place = folder / name / "ioi" / model / "local"
        place.mkdir(parents=True)
        (place / "run.json").write_text(record)
    file = folder / "a file"
    file.write_text("mine")
    return {**{name: folder / name for name in records}, "file": file}


@pytest.fixture(scope="session")
def places(tmp_path_factory, llama_folder) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("wrong")
    for name in ("models", "prompts", "stimuli", "outputs", "odd"):
        (folder / name).mkdir()
    found = {
        "model": llama_folder,
        **models(folder / "models", llama_folder),
        **prompts(folder / "prompts"),
        **stimuli(folder / "stimuli"),
        **outputs(folder / "outputs", llama_folder.name),
        **rankings(folder),
        **tasks(folder),
        **interventions(folder),
        **swaps(folder),
        **truths(folder),
        **reported(folder),
        **head_lists(folder),
        **odd_files(folder / "odd"),
    }
    return {name: str(path) for name, path in found.items()}


IOI = "ioi {model}"
FILE = "ioi {model} --prompts"
INSPECT = ["inspect", CLEAN, "{model}"]
STEER = "steer {model} --prompt the"
DAS = "das {model}"
FIT = "iti fit {model} --template {{question}}:{{answer}} --data"
ITI = "iti evaluate {model} --template {{question}}:{{answer}} --data {asked}"
BAKE = "iti bake {model} --template {{question}}:{{answer}} --data {asked} --intervention"
DRIFT = "drift {model} --types induction"
PATCH = ["patch", "{model}"]
NEEDLE = "detect retrieval {model}"
OWN = "detect spans {model} --spans"
OUT = "knockout {model} --heads 0.1"
VECTORS = "function-vectors {model} --tasks"
PLAIN = "--question {{}}: --shots 30"
MASK = "convert {list} --to kv_mask --shape 4x8 --kv-heads 4 --fill 0"

CASES = {
    # the model
    "no such path": (
        "ioi ./nowhere",
        2,
        r"no model folder './nowhere'",
    ),
    "no such absolute path": ("ioi /no/such/model", 2, "no model folder '/no/such/model'"),
    "too many slashes": ("inspect hello a/b/c", 2, "no model folder 'a/b/c'"),
    "a name of blanks": (["ioi", "  "], 2, "no model folder '  '"),
    "an empty name": (["patch", ""], 2, "no model folder ''"),
    "a folder without a model": (
        "ioi {empty}",
        2,
        r"is a folder without config\.json",
    ),
    "a file as a model": ("ioi {file}", 2, "is a file; expected a model folder"),
    "a name too long for a file": (
        ["ioi", "x" * 5000],
        2,
        "too long for the name of a file",
    ),
    "nobody's home": ("ioi ~nosuchuser/x", 2, "the name of no user"),
    "an address in brackets": ("ioi --remote http://[bad", 2, "use ndif, local or a URL"),
    "an address with blanks": (["ioi", "--remote", "http://a b"], 2, "use ndif, local or a URL"),
    "an address of snow": (["ioi", "--remote", "http://☃"], 2, "use ndif, local or a URL"),
    "more prompts than anybody has": ("ioi -n 200000", 2, "--limit 200000 .* at most 20000"),
    "a number of 5,000 digits": (["ioi", "-n", "9" * 5000], 2, "--limit"),
    "a length of 9,000 digits": (
        ["detect", "retrieval", "--lengths", "9" * 9000],
        2,
        "Not a list of lengths",
    ),
    "a billion depths": (
        "detect retrieval --document-depth-percent-intervals 1000000000",
        2,
        "--document-depth-percent-intervals .* at most 1000",
    ),
    "an unknown family": (
        "ioi {mamba}",
        2,
        "model family 'mamba' is not known to nnheads",
    ),
    "half a config": ("ioi {half_config}", 2, "cannot load '.*half_config'"),
    "a config without family": ("ioi {no_family}", 2, "cannot load '.*no_family'.*model_type"),
    "a Hub id without network": (
        "ioi owner/name",
        2,
        "cannot load 'owner/name': no such folder here, and the Hub",
    ),
    "a short Hub id without network": (
        "patch some-model",
        2,
        "cannot load 'some-model': no such folder here",
    ),
    "a name of ours, misspelt": (
        "ioi sm0llm2",
        2,
        "cannot load 'sm0llm2': no such folder here.*; did you mean 'smollm2'\\?",
    ),
    "no Hub id at all": (
        "ioi owner/na:me",
        2,
        "cannot load 'owner/na:me': no such folder and no such model",
    ),
    "truncated weights": ("ioi {truncated}", 2, "cannot load '.*truncated'"),
    "garbage for weights": ("patch {garbage}", 2, "cannot load '.*garbage'"),
    "no weights": ("ioi {no_weights}", 2, "cannot load '.*no_weights'"),
    "a tensor missing": (
        "ioi {no_head}",
        2,
        r"cannot load '.*no_head': .*layers\.1\.self_attn\.q_proj",
    ),
    "no tokenizer": ("ioi {no_tokenizer}", 2, "no_tokenizer holds no tokenizer; save it"),
    "half a tokenizer": ("ioi {half_tokenizer}", 2, "cannot load '.*half_tokenizer'"),
    "unknown dtype": (
        f"{IOI} --dtype float8",
        2,
        "dtype 'float8' is not known",
    ),
    "a device map of no device": (
        f"{IOI} --device-map banana",
        2,
        "device_map 'banana' is no device",
    ),
    "more than half of all heads": (f"{ITI} --heads 9999", 2, "more than half of the"),
    "unknown quantization": (
        f"{IOI} --quantization 3bit",
        2,
        "quantization '3bit' is not known",
    ),
    "quantized on a server": (
        f"{IOI} --quantization 8bit --remote http://127.0.0.1:9",
        2,
        "8bit is not possible on a server, which decides",
    ),
    "revision of a folder": (f"{IOI} --revision v1", 2, "is a folder and has no revision 'v1'"),
    # prompts
    "no prompt file": (
        f"{FILE} none.jsonl",
        2,
        r"(?i)no file 'none\.jsonl'.*expected \.jsonl or \.csv",
    ),
    "a folder of prompts": (f"{FILE} {{empty}}", 2, "(?i)no file '.*empty'"),
    "an empty prompt file": (f"{FILE} {{nothing_jsonl}}", 2, r"nothing\.jsonl holds no pairs"),
    "a binary prompt file": (
        f"{FILE} {{binary_jsonl}}",
        2,
        r"binary\.jsonl is not a text file in UTF-8",
    ),
    "half a record": (f"{FILE} {{half_jsonl}}", 2, r"half\.jsonl, line 2: not JSON"),
    "a list for a record": (
        f"{FILE} {{list_jsonl}}",
        2,
        r"list\.jsonl, line 1: expected an object",
    ),
    "a field missing in line 3": (
        f"{FILE} {{third_jsonl}}",
        2,
        r"third\.jsonl, line 3: 'wrong' is missing",
    ),
    "a table without a header": (
        f"{FILE} {{bare_csv}}",
        2,
        r"bare\.csv, line 1: the header names no 'clean'",
    ),
    "a table of a header": (f"{FILE} {{header_csv}}", 2, r"header\.csv holds no pairs"),
    "an empty text": (f"{FILE} {{blank_jsonl}}", 2, "line 1: 'clean' is missing or empty"),
    "unequal lengths": (
        f"{FILE} {{unequal_jsonl}}",
        2,
        "none of 1 .*clean and corrupted differ in their number",
    ),
    "a name of several tokens": (
        f"{FILE} {{split_jsonl}}",
        2,
        "none of 1 .*wrong is not a single token",
    ),
    "the same word twice": (f"{FILE} {{same_jsonl}}", 2, "none of 1 .*not the shape of the task"),
    "the same text twice": (
        f"{FILE} {{alike_jsonl}}",
        2,
        "none of 1 .*clean and corrupted are the same tokens",
    ),
    "another shape": (
        f"{FILE} {{shapeless_jsonl}}",
        2,
        "none of 1 sentences can be used: not the shape",
    ),
    "longer than the context": (
        f"{FILE} {{long_jsonl}}",
        2,
        r"the text has \d+ tokens",
    ),
    "prompts and a writer": (
        f"{FILE} {{good_jsonl}} --writer gpt2",
        2,
        "--prompts and --writer exclude each other",
    ),
    "a writer without a key": (f"{IOI} --writer openai:m", 2, "needs OPENAI_API_KEY"),
    "a writer that is nowhere": (f"{IOI} --writer ./nowhere", 2, r"no model folder '\./nowhere'"),
    "a writer that writes nonsense": (
        f"{IOI} --writer {{model}} -n 1",
        2,
        "none of .* sentences can be used",
    ),
    # numbers and words
    "no prompts": (f"{IOI} --limit 0", 2, "--limit"),
    "fewer than no prompts": (f"{IOI} -n -1", 2, "--limit"),
    "batches of nothing": (f"{IOI} --batch-size 0", 2, "--batch-size"),
    "a negative seed": (f"{IOI} --seed -1", 2, "--seed"),
    "a top of none": (f"{IOI} --top 0", 2, "--top 0 is not possible; it must be at least 1"),
    "more prompts than can be meant": (
        f"{IOI} --limit 99999999999999999999",
        2,
        "--limit .* must be at most",
    ),
    "a spread of too many": (
        f"{IOI} --spread 99",
        2,
        "spread 99 is not possible",
    ),
    "a spread of fewer than none": (
        "detect indirect_object reference --spread -1",
        2,
        "spread -1 is not possible",
    ),
    "a spread of a file": (
        f"{FILE} {{good_jsonl}} --spread 2",
        2,
        "--spread is for sentences of our own",
    ),
    "an unknown corruption": (
        f"{IOI} --corruption zzz",
        2,
        "corruption 'zzz' is not known",
    ),
    "a layer that is not there": (
        f"{IOI} --layers 3",
        2,
        "layer 3 does not exist",
    ),
    "no list of layers": (f"{IOI} --layers 1-", 2, "Not a list of layers: '1-'"),
    "layers backwards": (f"{IOI} --layers 2-0", 2, "'2-0' runs backwards"),
    "a gap that is no number": (
        f"{IOI} --gap nan",
        2,
        "--gap nan is not possible",
    ),
    "a negative gap": (f"{IOI} --gap -1", 2, "--gap -1.0 is not possible"),
    "an infinite gap": (f"{IOI} --gap inf", 2, "--gap inf is not possible"),
    "remote nonsense": (
        f"{IOI} --remote=nonsense",
        2,
        "remote 'nonsense' is not possible",
    ),
    "a server that is not there": (
        f"{IOI} --remote http://127.0.0.1:9",
        1,
        "the server http://127.0.0.1:9 cannot be reached",
    ),
    # the run
    "a file for results": (f"{IOI} -o {{file}}", 2, "--output.* is a file"),
    "a place where nothing can be": (f"{IOI} -o /proc/nowhere", 1, "cannot write /proc/nowhere.*"),
    "results of another run": (
        f"{IOI} -o {{another}}",
        2,
        "holds another run .*seed 5 there, 0 here.*--overwrite",
    ),
    "a corrupt record": (
        f"{IOI} -o {{corrupt}}",
        2,
        r"run\.json is not a record of a run",
    ),
    "weights that are no numbers": (
        "ioi {nan}",
        1,
        "not finite: broken weights, or a dtype that overflows",
    ),
    "nothing answered right": (
        f"{IOI} --strict -n 2",
        1,
        "answers none of 2 prompts right on both runs",
    ),
    # inspect
    "nothing to inspect": (["inspect", "", "{model}"], 2, "text is empty"),
    "blanks to inspect": (["inspect", " \n ", "{model}"], 2, "text is empty"),
    "too much to inspect": (
        ["inspect", LONG, "{model}"],
        2,
        r"the text has \d+ tokens",
    ),
    "no head": (
        [*INSPECT, "--head", "L1"],
        2,
        "Not a head: 'L1'",
    ),
    "a head that is not there": (
        [*INSPECT, "--head", "1.4"],
        2,
        "L1H4 does not exist.*heads 0 to 3",
    ),
    "a head of no layer": (
        [*INSPECT, "--head", "L3H0"],
        2,
        "L3H0 does not exist",
    ),
    "no candidates": ([*INSPECT, "--top", "0"], 2, "--top 0 is not possible"),
    "too many candidates": (
        [*INSPECT, "--top", "9999"],
        2,
        "candidates: 9999",
    ),
    "inspecting no numbers": (["inspect", CLEAN, "{nan}"], 1, "not finite"),
    "inspecting into a file": ([*INSPECT, "-o", "{file}"], 2, "--output.* is a file"),
    "a site without heads": (
        "ioi {model} --site z,mlp_out",
        2,
        "site 'mlp_out' has no heads",
    ),
    "roles of a file": (
        "ioi {model} --roles --prompts {file}",
        2,
        "--roles draws sentences of its own",
    ),
    "a plan with a writer": (
        "ioi {model} --plan --writer {model}",
        2,
        "--plan asks no --writer for sentences",
    ),
    # patch
    "two rows of tokens": (
        [*PATCH, "--corrupted", "Mary gave the book to"],
        2,
        "have 14 and 5 tokens",
    ),
    "an answer of several tokens": (
        [*PATCH, "--answer", "Mary John"],
        2,
        r"'Mary John' is not one.*Mary \| John",
    ),
    "an answer that is unknown": (
        [*PATCH, "--wrong", "Zebulon"],
        2,
        "wrong 'Zebulon' is not one token",
    ),
    "the same answer twice": (
        [*PATCH, "--wrong", "Mary"],
        2,
        "answer and wrong are the same token",
    ),
    "the same prompt twice": (
        [*PATCH, "--corrupted", CLEAN],
        2,
        "clean and corrupted are the same tokens",
    ),
    "an empty prompt": ([*PATCH, "--clean", ""], 2, "--clean is empty"),
    "an empty answer": ([*PATCH, "--answer", " "], 2, "--answer is empty"),
    "a prompt that is too long": (
        [*PATCH, "--clean", LONG, "--corrupted", LONG_CORRUPTED],
        2,
        "reads at most 128",
    ),
    "patching no numbers": (["patch", "{nan}"], 1, "logits are not finite"),
    "a top of less than none": ([*PATCH, "--top", "-1"], 2, "--top -1 is not possible"),
    # circuit
    "a circuit of no head": ("circuit {model} --heads ,", 2, "the group 'circuit' is empty"),
    "a circuit of nothing": (
        ["circuit", "{model}", "--heads", " "],
        2,
        "--heads names no head",
    ),
    "a group of no head": (
        ["circuit", "{model}", "--heads", "a: 1.1; b:"],
        2,
        "the group 'b' is empty",
    ),
    "two groups of a name": (
        ["circuit", "{model}", "--heads", "a:1.1; a:1.2"],
        2,
        "names the group 'a' twice",
    ),
    "groups that overlap": (
        ["circuit", "{model}", "--heads", "a: 1.1; b: L1H1"],
        2,
        "L1H1.* two groups, a and b",
    ),
    "a head twice": ("circuit {model} --heads 1.1,1.2,1.1", 2, "L1H1.* twice in circuit"),
    "a circuit of no heads": (
        "circuit {model} --heads all",
        2,
        "Not a head: 'all'",
    ),
    "a circuit beyond the model": (
        "circuit {model} --heads 1.1,3.0",
        2,
        "L3H0.*this model has",
    ),
    "an unknown removal": (
        "circuit {model} --ablation knock",
        2,
        "--ablation 'knock' is not known",
    ),
    "a mean set for zeros": (
        "circuit {model} --ablation zero --mean-set {good_jsonl}",
        2,
        "--mean-set is for mean and resample",
    ),
    "a mean set for our own sentences": (
        "circuit {model} --mean-set {good_jsonl}",
        2,
        "--mean-set goes with --prompts",
    ),
    "a mean set of the same text": (
        "circuit {model} --prompts {good_jsonl} --mean-set {good_jsonl}",
        2,
        "1 of 1 prompts have no other of their template and length in the mean set",
    ),
    "a mean set that is nowhere": (
        "circuit {model} --prompts {good_jsonl} --mean-set none.jsonl",
        2,
        r"(?i)no file 'none\.jsonl'",
    ),
    "a ranking that is nowhere": ("circuit {model} --from nowhere", 2, "no file 'nowhere'"),
    "a ranking that is no netCDF": ("circuit {model} --from {file}", 2, "a file"),
    "a ranking by nothing": (
        "circuit {model} --from {ranked} --statistic zzz",
        2,
        "no statistic 'zzz' of heads",
    ),
    "a ranking of another model": (
        "circuit {model} --from {ranked}",
        2,
        "up to layer 4, 2 a layer",
    ),
    "a ranking without values": (
        "circuit {model} --from {unranked}",
        2,
        "effect has no value for any head",
    ),
    "fewer subsets than none": ("circuit {model} --subsets -1", 2, "--subsets"),
    "a circuit of a top of none": ("circuit {model} --top 0", 2, "--top 0 is not possible"),
    "own prompts that are alone": (
        "circuit {model} --prompts {backwards_jsonl} --heads 0.0",
        2,
        "1 of 1 prompts have no other of their template and length in them",
    ),
    "a circuit of a model that cannot": (
        "circuit {model} --prompts {backwards_jsonl} --heads 0.0 --ablation corrupted",
        1,
        r"does not do this task: F\(M\) is -",
    ),
    # function-vectors
    "no tasks in its language": (
        "function-vectors {model}",
        2,
        "no task can be shown to this model: of task 'colour'",
    ),
    "tasks that are nowhere": (
        f"{VECTORS} nowhere",
        2,
        "no file 'nowhere'",
    ),
    "tasks that are no text": (f"{VECTORS} {{binary_jsonl}}", 2, "is not a text file in UTF-8"),
    "no pairs of words": (
        f"{VECTORS} {{nothing_jsonl}}",
        2,
        "is empty; expected one pair a line with task, input",
    ),
    "half a pair of words": (f"{VECTORS} {{half_jsonl}}", 2, "line 1: 'task' is missing or empty"),
    "too few pairs of words": (
        f"{VECTORS} {{counting}} {PLAIN}",
        2,
        "20 of 20 pairs can be used, 30 shots need 43",
    ),
    "tasks that it cannot do": (
        f"{VECTORS} {{counting}} --question {{{{}}}}: --shots 4 -n 6 --averaged 6",
        1,
        r"does none of the tasks \(next\): with 4 examples 0% are answered right, with shuffled ones 0%",
    ),
    "a question without a word": (
        f"{VECTORS} {{counting}} --question what?",
        2,
        "--question 'what.' must hold",
    ),
    "an answer of two words": (
        f"{VECTORS} {{counting}} --answer {{{{}}}}{{{{}}}}",
        2,
        "must hold {} once",
    ),
    "no shots": ("function-vectors {model} --shots 0", 2, "--shots 0 is not possible"),
    "vectors of all heads": (
        "function-vectors {model} --top 12",
        2,
        "--top 12 leaves no head to compare with",
    ),
    "averages of one": (
        "function-vectors {model} --averaged 1",
        2,
        "--averaged 1 is too few to tell whether",
    ),
    "averages of nothing": (
        "function-vectors {model} --averaged 0",
        2,
        "--averaged 0 is not possible",
    ),
    # detect
    "an unknown head type": ("detect zzz {model}", 2, "zzz"),
    "nothing to repeat": ("detect induction {model} --length 0", 2, "--length 0 is not possible"),
    "more to repeat than fits": (
        "detect induction {model} --length 100",
        2,
        "this model reads at most 128",
    ),
    "detecting no numbers": ("detect induction {nan} --length 8 -n 2", 1, "not finite"),
    "a checkpoint that is not there": (
        "detect induction {model} --revision a,b",
        2,
        "has no folder 'a'",
    ),
    "detecting into a file": ("detect induction {model} -o {file}", 2, "--output.* is a file"),
    "one token to repeat": (
        "detect induction {model} --length 1",
        2,
        "1 tokens are too short to repeat",
    ),
    "two steps": ("detect iteration {model} --steps 2", 2, "2 steps are too few"),
    "an unknown task": (
        "detect iteration {model} --task sorting",
        2,
        "'sorting'.*copy",
    ),
    "no room for a needle": (
        f"{NEEDLE} --lengths 12",
        2,
        "12 tokens cannot hold needle, question and",
    ),
    "prompts beyond the context": (
        f"{NEEDLE} --lengths 64,129",
        2,
        "129 tokens; this model reads at most 128",
    ),
    "answers beyond the context": (
        "detect hallucination {model} --lengths 128 --document-depth-percent-intervals 1 -n 12",
        2,
        "reads at most 128",
    ),
    "a grid beyond the context": (
        f"{NEEDLE} --s-len 60 --e-len 900",
        2,
        "900 tokens; this model reads at most 128",
    ),
    "all types beyond the context": (
        "detect all {model} --lengths 129",
        2,
        "this model reads at most 128",
    ),
    "a grid backwards": (
        f"{NEEDLE} --s-len 90 --e-len 60",
        2,
        "from --s-len 90 to --e-len 60 are not possible",
    ),
    "a grid of no lengths": (
        f"{NEEDLE} --context-lengths-num-intervals 0",
        2,
        "num-intervals 0 is not possible",
    ),
    "a grid of no depths": (
        f"{NEEDLE} --document-depth-percent-intervals 0",
        2,
        "intervals 0 is not possible",
    ),
    "a grid and a list": (
        f"{NEEDLE} --s-len 60 --lengths 60",
        2,
        "--lengths and --s-len exclude each other",
    ),
    "a grid for no needles": (
        "detect induction {model} --s-len 60",
        2,
        "--s-len is for retrieval types",
    ),
    "no list of lengths": (f"{NEEDLE} --lengths many", 2, "Not a list of lengths: 'many'"),
    "an empty haystack": (
        f"{NEEDLE} --haystack {{no_text}}",
        2,
        r"holds no \.txt file with sentences",
    ),
    "a binary haystack": (
        f"{NEEDLE} --haystack {{no_letters}}",
        2,
        r"a\.txt is not a text file in UTF-8",
    ),
    "a haystack that is nowhere": (f"{NEEDLE} --haystack nowhere", 2, "no folder 'nowhere'"),
    "needles that are nowhere": (
        f"{NEEDLE} --needles nowhere",
        2,
        "no file 'nowhere'",
    ),
    "needles without answer": (
        f"{NEEDLE} --needles {{unanswered}}",
        2,
        "line 1: the answer 'blue' occurs 0 times",
    ),
    "a needle beyond the prompt": (
        f"{NEEDLE} --needles {{endless}} --lengths 100",
        2,
        "100 tokens cannot hold needle",
    ),
    "no needles at all": (
        f"{NEEDLE} --needles {{nothing_jsonl}}",
        2,
        "is empty; expected one needle",
    ),
    "spans without a file": ("detect spans {model}", 2, "head type 'spans' needs --spans FILE"),
    "spans without a file or model": (
        "detect spans ./nowhere",
        2,
        "head type 'spans' needs --spans FILE",
    ),
    "a file of spans without the type": (
        "detect all ./nowhere --spans {spanned}",
        2,
        "which needs the type spans",
    ),
    "spans that are nowhere": (
        f"{OWN} nowhere",
        2,
        "no file 'nowhere'",
    ),
    "spans that are no text": (f"{OWN} {{binary_jsonl}}", 2, "is not a text file in UTF-8"),
    "no spans": (
        f"{OWN} {{nothing_jsonl}}",
        2,
        "is empty; expected one text with its spans a line",
    ),
    "half a line of spans": (
        f"{OWN} {{half_jsonl}}",
        2,
        "line 1: expected an object with text and spans",
    ),
    "spans into the future": (f"{OWN} {{future}}", 2, "the key 'to' comes after its query 'Mary'"),
    "a kind that leads elsewhere": (
        f"{OWN} {{path}}",
        2,
        r"kind '\.\./giver' cannot name a head type",
    ),
    "spans beyond the context": (
        f"{OWN} {{stretched}}",
        2,
        "the text has 135 tokens",
    ),
    "spans and needles": (
        f"{OWN} {{spanned}} --needles {{unanswered}}",
        2,
        "--needles is for retrieval types",
    ),
    "fewer than no sequences": ("detect induction {model} -n -2", 2, "--limit -2 is not possible"),
    # writes
    "an unknown kind of writing": (
        "writes {model} --kind zzz",
        2,
        "--kind 'zzz' is not known",
    ),
    "words that are nowhere": (
        "writes {model} --words nowhere",
        2,
        "no file 'nowhere'",
    ),
    "no words": ("writes {model} --words {nothing_jsonl}", 2, "is empty; expected one word a line"),
    "words that are no text": (
        "writes {model} --words {binary_jsonl}",
        2,
        "is not a text file in UTF-8",
    ),
    "words of several tokens": (
        "writes {model} --words {good_jsonl}",
        2,
        "0 of 1 words are single tokens",
    ),
    "a class of one": (
        "writes {model} --kind successor --words {good_jsonl}",
        2,
        "'words' has 1 words",
    ),
    "words that nobody asks for": (
        "writes {model} --kind composition --words {good_jsonl}",
        2,
        "looks at no words",
    ),
    "composition through nothing": (
        "writes {model} --kind composition --through z",
        2,
        "composition: 'z'",
    ),
    "one token to suppress": (
        "writes {model} --kind suppression -n 1",
        2,
        "number of tokens: 1",
    ),
    "no words at all": (
        "writes {model} --limit 0",
        2,
        "--limit 0 is not possible",
    ),
    "writing no numbers": ("writes {nan}", 1, "what heads write are not finite"),
    "composing no numbers": (
        "writes {nan} --kind composition",
        1,
        "composition scores are not finite",
    ),
    "coupling no numbers": ("writes {nan} --kind coupling -n 4", 1, "not finite"),
    "writing into a file": ("writes {model} -o {file}", 2, "--output.* is a file"),
    "no receiver": (
        ["path", "{model}", "--receivers", "zz"],
        2,
        "Not a head: 'zz'",
    ),
    "a receiver beyond the model": (
        "path {model} --receivers 9.9",
        2,
        "L9H9 does not exist",
    ),
    "a receiver before senders": (
        "path {model} --receivers 1.1 --senders 1.0",
        2,
        "receivers before senders: L1H0",
    ),
    "a receiver at the very bottom": (
        "path {model} --receivers 0.1",
        2,
        "no head stands before layer 0",
    ),
    "a receiver by z": (
        "path {model} --receivers 1.1 --via z",
        2,
        "via 'z' is not known",
    ),
    "a sender beyond the model": ("path {model} --senders 0.9", 2, "L0H9 does not exist"),
    "a path along no role": (
        "path {model} --at S9",
        2,
        "role 'S9' is not known in these prompts",
    ),
    "half frozen parts": (
        "path {model} --mlps half",
        2,
        "mlps 'half' is not possible",
    ),
    "paths of no prompts": ("path {model} -n 0", 2, "--limit 0 is not possible"),
    "paths of no corruption": (
        "path {model} --corruption zz",
        2,
        "corruption 'zz' is not known",
    ),
    # attribute
    "an unknown method": (
        "attribute {model} --method ig",
        2,
        r"--method 'ig' is not known",
    ),
    "an estimate of patterns": (
        "attribute {model} --site pattern",
        2,
        "no estimate of their own .* site q, k or z",
    ),
    "direct values": (
        "attribute {model} --method direct --site v",
        2,
        "site 'v' has no estimate by direct",
    ),
    "estimating for the top none": (
        "attribute {model} --top 0",
        2,
        "--top 0 is not possible",
    ),
    "an audit of less than none": ("attribute {model} --audit -1", 2, "--audit -1 is not possible"),
    "a threshold that is no number": (
        "attribute {model} --threshold nan",
        2,
        "--threshold nan is not possible",
    ),
    "another corruption to estimate": (
        "attribute {model} --corruption zzz",
        2,
        "corruption 'zzz' is not known",
    ),
    "gradients on a server": (
        "attribute {model} --remote http://127.0.0.1:9",
        1,
        "gradients do not run in NDIF's",
    ),
    "gradients on NDIF": (
        "attribute {model} --remote ndif",
        1,
        r"use remote='local', .*or the exact sweep \(patch\)",
    ),
    "estimating no numbers": ("attribute {nan}", 1, "not finite: broken weights"),
    "estimating into a file": ("attribute {model} -o {file}", 2, "--output.* is a file"),
    # knockout
    "no head to knock out": (
        "knockout {model} --heads zz",
        2,
        "Not a head: 'zz'",
    ),
    "no plan without a list": (
        "knockout {model} --plan",
        2,
        "--plan needs a list of heads",
    ),
    "a knockout beyond the model": (
        "knockout {model} --heads 0.1,3.0",
        2,
        "L3H0 does not exist",
    ),
    "the same head out twice": (
        "knockout {model} --heads 0.1,L0H1",
        2,
        "L0H1 is named twice in one group",
    ),
    "more heads than others": (
        "knockout {model} --heads 0.0,0.1,0.2,0.3,1.0,1.1,1.2",
        2,
        "7 of 12 heads.*first 6 heads",
    ),
    "more heads than listed": (
        f"{OUT} --ks 0,2",
        2,
        "2, and the list has 1",
    ),
    "numbers of heads that are none": (
        f"{OUT} --ks 1-3",
        2,
        "--ks '1-3' is no list of numbers",
    ),
    "no heads at all": (f"{OUT} --ks 0", 2, r"heads to knock out: \[0\]"),
    "fewer than no random lists": (
        f"{OUT} --draws -1",
        2,
        "--draws -1 is not possible",
    ),
    "an unknown behaviour": (
        f"{OUT} --behaviour zz",
        2,
        "'zz'.* ioi, induction",
    ),
    "a behaviour without detector": (
        "knockout {model} --behaviour ioi",
        2,
        "no detector finds the heads of behaviour",
    ),
    "a behaviour without pairs": (
        f"{OUT} --behaviour pairs",
        2,
        "ehaviour pairs needs a file.*--prompts",
    ),
    "pairs without the behaviour": (
        f"{OUT} --prompts {{good_jsonl}}",
        2,
        "takes no file of pairs",
    ),
    "an unknown ablation": (
        f"{OUT} --ablation median",
        2,
        "ablation 'median' is not known",
    ),
    "pairs that are nowhere": (
        f"{OUT} --behaviour pairs --prompts nowhere",
        2,
        "(?i)no file 'nowhere'",
    ),
    "truth of another model": (f"{OUT} --behaviour truth", 2, "facts of the shipped model's world"),
    "a length of no behaviour": (
        f"{OUT} --behaviour ioi --length 9",
        2,
        "ehaviour ioi has no length",
    ),
    "more to copy than fits": (f"{OUT} --length 100", 2, "this model reads at most 128"),
    "a metric of two answers": (
        f"{OUT} --metric logit_difference --length 9",
        2,
        "compares two answers",
    ),
    "a metric that is none": (
        f"{OUT} --metric loss",
        2,
        "metric 'loss' is not known",
    ),
    "knocking out at no role": (
        f"{OUT} --at S9 --length 9",
        2,
        "role 'S9' is not known in these prompts",
    ),
    "a top of a list": (f"{OUT} --top 3 --heads L1H1", 2, "--top cuts a ranking"),
    "a statistic of no run": (
        f"{OUT} --statistic mass",
        2,
        "--statistic needs --from, a run that ranks heads",
    ),
    "a list from two places": (
        f"{OUT} --from {{another}}",
        2,
        "--heads and --from exclude each other",
    ),
    "a run that is nowhere": (
        "knockout {model} --from nowhere",
        2,
        "no file 'nowhere'",
    ),
    "a run without heads": (
        "knockout {model} --from {empty}",
        2,
        r"no file '.*empty/heads\.nc'",
    ),
    "heads that are no list": (
        "knockout {model} --from {good_jsonl}",
        2,
        "holds no list of heads: 'clean' is not",
    ),
    "knocking out no numbers": (
        "knockout {nan} --heads 0.1 --length 9 -n 4",
        1,
        "not finite: broken weights",
    ),
    "knocking out into a file": (f"{OUT} -o {{file}}", 2, "--output.* is a file"),
    # steer
    "no texts to steer by": (
        "steer {model} --prompt the",
        2,
        "--toward and --away are needed: two files of texts",
    ),
    "texts toward alone": (
        "steer {model} --toward {file}",
        2,
        "--toward and --away belong together",
    ),
    "texts that are not there": (
        f"{STEER} --toward nowhere --away {{file}}",
        2,
        "no file 'nowhere'",
    ),
    "one text of each sort": (
        f"{STEER} --toward {{file}} --away {{four_texts}}",
        2,
        "texts toward: 1, too few",
    ),
    "nothing to continue": (
        "steer {model} --toward {file} --away {file}",
        2,
        "--prompt or --prompts is needed",
    ),
    "two sources of prompts": (
        f"{STEER} --prompts {{file}}",
        2,
        "--prompt and --prompts exclude each other",
    ),
    "no random direction": (
        "steer reference --draws 0",
        2,
        "--draws 0 is not possible",
    ),
    "no strength": (
        "steer reference --strength strong",
        2,
        "--strength 'strong' is no list of numbers",
    ),
    "an endless strength": (
        "steer reference --strength inf",
        2,
        "--strength 'inf' is no list of numbers",
    ),
    "steering a layer of no number": (
        f"{STEER} --layer last",
        2,
        "--layer 'last' is not possible",
    ),
    "steering beyond the model": (
        "steer reference --layer 9",
        2,
        "layer 9 does not exist",
    ),
    "steering attention": (
        "steer reference --site pattern",
        2,
        "site 'pattern' has no direction",
    ),
    "steering nowhere": (
        f"{STEER} --at start",
        2,
        "--at 'start' is not known",
    ),
    "reading nowhere": (
        f"{STEER} --read start",
        2,
        "--read 'start' is not known",
    ),
    "writing nothing": (
        f"{STEER} --new-tokens 0",
        2,
        "--new-tokens 0 is not possible",
    ),
    "writing beyond the model": (
        "steer reference --new-tokens 2000",
        2,
        "this model reads at most 1024",
    ),
    "a negative temperature": (
        f"{STEER} --temperature -1",
        2,
        r"temperature -1\.0 is not possible",
    ),
    "more than all tokens": (f"{STEER} --top-p 2", 2, r"top_p 2\.0 is not possible"),
    "no such intervention": (
        f"{STEER} --intervention ./nowhere",
        2,
        "no folder './nowhere'",
    ),
    "a folder without intervention": (
        f"{STEER} --intervention {{empty}}",
        2,
        "a folder without intervention",
    ),
    "an intervention moved": (
        f"{STEER} --intervention {{empty}} --layer 1",
        2,
        "--layer is for a direction",
    ),
    "an intervention with a source": (
        f"{STEER} --intervention {{sourced}}",
        2,
        "takes 1 source prompts, which",
    ),
    "scaling what adds nothing": (
        f"{STEER} --intervention {{zeroed}} --strength 3",
        2,
        "this one adds nothing;",
    ),
    "an intervention for more layers": (
        f"{STEER} --intervention {{zeroed}}",
        2,
        "layer 7 does not exist",
    ),
    "steering no numbers": (
        "steer {nan} --toward {several} --away {four_texts} --prompt the",
        1,
        "activations are not finite: broken weights",
    ),
    "trust in nothing": (
        f"{STEER} --trust",
        2,
        "--trust is for a saved intervention",
    ),
    "steering into a file": ("steer reference -o {file}", 2, "--output.* is a file"),
    # drift
    "drift of no type": (
        "drift {model} --types sinks",
        2,
        "'sinks'.*attention_sink",
    ),
    "drift against nothing known": (
        f"{DRIFT} --against int3",
        2,
        "--against 'int3'.* float32",
    ),
    "drift against itself": (
        f"{DRIFT} --against float32",
        2,
        "oth sides would be float32",
    ),
    "drift in the same attention": (
        f"{DRIFT} --against sdpa -n 2",
        2,
        r"both sides are float32 \(sdpa\)",
    ),
    "drift against no server": (
        f"{DRIFT} --against remote",
        2,
        "--against remote and --remote",
    ),
    "drift on a server alone": (
        f"{DRIFT} --remote local",
        2,
        "--against remote and --remote",
    ),
    "drift of more heads than there are": (
        f"{DRIFT} --top 13",
        2,
        "--top 13.* 12",
    ),
    "drift of no heads": (f"{DRIFT} --top 0", 2, "--top 0 is not possible; it must be at least 1"),
    "drift in eight bits and float32": (
        f"{DRIFT} --quantization 8bit",
        2,
        "needs bitsandbytes|8bit computes in float16",
    ),
    "drift of no numbers": (
        "drift {nan} --types induction",
        1,
        "attention scores are not finite: broken weights",
    ),
    "drift into a file": ("drift reference -o {file}", 2, "--output.* is a file"),
    # iti
    "no questions": (
        "iti fit {model}",
        2,
        "--data is needed: a TruthfulQA CSV, mc_task.json, JSON lines or",
    ),
    "questions that are nowhere": (
        f"{FIT} nowhere",
        2,
        "no file 'nowhere'",
    ),
    "one question": (f"{FIT} {{asked_little}}", 2, "1 questions cannot be cut into 2 folds"),
    "words that are not known": (
        "iti fit {model} --data {asked}",
        2,
        "does not know the words of any",
    ),
    "an unknown direction": (
        f"{ITI} --direction ccs",
        2,
        "--direction 'ccs' is not known",
    ),
    "an unknown scope": (
        f"{ITI} --scope here",
        2,
        "--scope 'here' is not known",
    ),
    "the last position": (
        f"{ITI} --scope last",
        2,
        "an edit of scope last comes too late for every answer: the last",
    ),
    "no strength to edit": (
        f"{ITI} --alpha strong",
        2,
        "--alpha 'strong' is no list of numbers",
    ),
    "no heads to edit": (
        f"{ITI} --heads 0",
        2,
        r"--heads '0' is no list of counts.*\(counts begin at 1\)",
    ),
    "half a head": (f"{ITI} --heads 1.5", 2, "--heads '1.5' is no list of counts"),
    "one fold": (f"{ITI} --folds 1", 2, "1 folds leave no question to test on; at least 2"),
    "a fold too many": (
        f"{FIT} {{asked}} --fold 2",
        2,
        "--fold 2 does not exist",
    ),
    "no question to ask": (f"{ITI} -n 0", 2, "--limit 0 is not possible; it must be at least 1"),
    "nobody to judge": (f"{ITI} --judge openai:x", 2, "needs OPENAI_API_KEY in the environment"),
    "a judge who is nowhere": (f"{ITI} --judge ./nowhere", 2, "no model folder './nowhere'"),
    "a template without answer": (
        f"{ITI} --template {{{{question}}}}",
        2,
        "must hold {question} and after it",
    ),
    "neutral texts nowhere": (f"{ITI} --neutral nowhere", 2, "no file 'nowhere'; expected one"),
    "a neutral text of one token": (
        f"{ITI} --neutral {{one_word}}",
        2,
        "neutral text 1 has fewer than two tokens",
    ),
    "fitting no numbers": (
        f"{FIT.replace('model', 'nan')} {{asked}}",
        1,
        "heads' outputs are not finite: broken",
    ),
    "an edit that was fitted on this": (
        f"{ITI} --intervention {{leaked}}",
        1,
        "1 of . test questions gave the edit",
    ),
    "an edit that is too late": (
        f"{ITI} --intervention {{late}} --samples 0",
        2,
        "comes too late for every answer",
    ),
    "strength of a saved edit": (
        f"{ITI} --intervention {{late}} --alpha 3",
        2,
        "--alpha is for an edit that is",
    ),
    "a plan of a saved edit": (
        f"{ITI} --intervention {{late}} --plan",
        2,
        "--plan says what fitting and testing cost",
    ),
    "no edit yet": (
        "iti generate {model} --prompt the",
        2,
        "no edit of .* run nnheads iti fit first, or name one",
    ),
    "no edit to share": ("iti export {model}", 2, "no edit of .* run nnheads iti fit first"),
    "nothing to say": (
        "iti generate {model} --intervention {late}",
        2,
        "--prompt or --prompts is needed",
    ),
    "two sources to continue": (
        "iti generate reference --prompt a --prompts {file}",
        2,
        "exclude each other",
    ),
    "baking what is written": (
        f"{BAKE} {{written}}",
        2,
        "an edit at decode cannot be baked: a bias acts at every",
    ),
    "baking another site": (f"{BAKE} {{elsewhere}}", 2, "a bias cannot hold add at mlp_out"),
    "baking into a folder": (
        f"{BAKE} {{leaked}} --to {{empty}}/..",
        2,
        "exists already; name a folder that does not",
    ),
    "an edit that is nowhere": (f"{BAKE} ./nowhere", 2, "no folder './nowhere'"),
    "iti into a file": ("iti fit reference -o {file}", 2, "--output.* is a file"),
    # das
    "no causal model": (
        f"{DAS} --task sums",
        2,
        "task 'sums' is not known",
    ),
    "an unknown variable": (
        f"{DAS} --variable name",
        2,
        "variable 'name' is not known",
    ),
    "an unknown kind": (
        f"{DAS} --kind pca",
        2,
        "--kind 'pca' is not known",
    ),
    "an unknown site": (
        f"{DAS} --site resid",
        2,
        "--site 'resid' is not known",
    ),
    "no features to rotate": (
        "das reference --site pattern --layers 0",
        2,
        "site 'pattern' has no features to rotate",
    ),
    "no steps": (f"{DAS} --steps 0", 2, "--steps 0 is not possible; it must be at least 1"),
    "no pairs in a step": (f"{DAS} --step-pairs 0", 2, "--step-pairs 0 is not possible"),
    "no test": (f"{DAS} --test 0", 2, "--test 0 is not possible; it must be at least 1"),
    "no directions": (f"{DAS} --directions 0", 2, "--directions 0 is not possible"),
    "no patience": (f"{DAS} --patience 0", 2, "--patience 0 is not possible"),
    "no learning": (
        f"{DAS} --learning-rate 0",
        2,
        "--learning-rate 0.0 is not possible",
    ),
    "more directions than features": (
        "das reference --directions 129",
        2,
        "directions 129 are not possible",
    ),
    "a role of another task": (
        "das reference --at INPUT",
        2,
        "--at 'INPUT' is not known",
    ),
    "a position that is none": (
        f"{DAS} --pairs {{swaps}} --at END",
        2,
        "--at 'END' is not known",
    ),
    "a position beyond": (
        f"{DAS} --pairs {{swaps}} --at 9",
        2,
        "position 9 lies outside a prompt of 4 tokens",
    ),
    "aligning beyond the model": (
        "das reference --layers 4",
        2,
        "layer 4 does not exist",
    ),
    "a model that cannot do it": (
        f"{DAS} -n 20",
        1,
        "answers . of 20 prompts of ioi right",
    ),
    "a variable of own pairs": (
        f"{DAS} --pairs {{swaps}} --variable a",
        2,
        "--variable is of a causal model that",
    ),
    "own pairs that are nowhere": (
        f"{DAS} --pairs nowhere",
        2,
        "no file 'nowhere'",
    ),
    "own pairs without answers": (
        f"{DAS} --pairs {{good_jsonl}}",
        2,
        "line 1: expected an object with base, source",
    ),
    "few own pairs": (
        f"{DAS} --pairs {{few_swaps}}",
        2,
        "holds 2 different pairs",
    ),
    "an answer of many tokens": (
        f"{DAS} --pairs {{odd_swaps}}",
        2,
        "answer 'unheard' of pair 0 is not one token",
    ),
    "aligning no numbers": ("das {nan} --pairs {swaps}", 1, "the loss at step 0 is nan"),
    "aligning into a file": ("das reference -o {file}", 2, "--output.* is a file"),
    # report and atlas
    "no folder to report": (
        "report nowhere",
        2,
        "no folder 'nowhere'",
    ),
    "a folder without runs": (
        "report {empty}",
        2,
        "no finished run in .*",
    ),
    "a run that is none": (
        "report {unrecorded}",
        2,
        "run.json is not a record of a run",
    ),
    "a run that cannot be read": ("report {unread}", 2, "heads.nc cannot be read as netCDF"),
    "texts for no model": (
        "report {headless} --texts {several}",
        2,
        "--texts is read by a model",
    ),
    "attention of another model": (
        "report {headless} --attention x/y",
        2,
        "no run is of that model",
    ),
    "a report over a file": (
        "report {headless} -o {file}",
        2,
        "exists and is no page of nnheads report",
    ),
    "an atlas of nothing": ("atlas {empty}", 2, "no finished run in"),
    "an atlas of what cannot be read": ("atlas {unread}", 2, "heads.nc cannot be read as netCDF"),
    "an atlas without heads": ("atlas {headless}", 2, "say nothing of single heads"),
    "no heads to compare": (
        "atlas {headless} --top 0",
        2,
        "--top 0 is not possible",
    ),
    "fewer than no draws": (
        "atlas {headless} --draws -1",
        2,
        "--draws -1 is not possible",
    ),
    "an atlas into a file": ("atlas {headless} -o {file}", 2, "is a file"),
    # lists of heads
    "no list to convert": (
        "convert nowhere --to scores",
        2,
        "no file 'nowhere'",
    ),
    "a file without a format": (
        "convert {list}",
        2,
        "--to and --output belong together: a format and a file",
    ),
    "an unknown format": (
        "convert {list} --to xml",
        2,
        "format 'xml' is not known",
    ),
    "no list at all": (
        "convert {file} --to scores",
        2,
        "holds no list of heads: its format is not known",
    ),
    "a list of prompts": (
        "convert {good_jsonl} --to scores",
        2,
        "holds no list of heads: 'clean' is not layer-head",
    ),
    "an ending of another format": (
        "convert {list} --to array",
        2,
        r"does not end in \.npy, as files of array do",
    ),
    "a shape that is none": (
        "convert {list} --to tensor --shape 32",
        2,
        "--shape '32' is not possible",
    ),
    "a shape and a model": (
        "convert {list} --to tensor --shape 3x4 --model {model}",
        2,
        "leave --shape and --kv",
    ),
    "heads beyond the shape": (
        "convert {list} --to tensor --shape 1x1",
        2,
        "the list is of 3 layers of 5 heads",
    ),
    "a list of no model": (
        "convert {list} --to tensor --model ./gone",
        2,
        r"no model folder '\./gone'",
    ),
    "a table of few heads": (
        "convert {list} --to kv_mask --shape 4x8 --kv-heads 4",
        2,
        "28 heads have no score",
    ),
    "a mask of no size": (
        "convert {list} --to kv_mask",
        2,
        "kv_mask is of key/value heads",
    ),
    "no key/value heads": (
        "convert {list} --to kv_mask --kv-heads 0",
        2,
        "--kv-heads 0 is not possible",
    ),
    "a mask chosen twice": (
        f"{MASK} --threshold 1 --sparsity 0.5",
        2,
        "--threshold and --sparsity exclude each other",
    ),
    "more than all stream": (
        f"{MASK} --sparsity 2",
        2,
        "--sparsity 2.0 is not possible",
    ),
    "the top of a mask": (
        f"{MASK} --top 2",
        2,
        "--top chooses query heads",
    ),
    "a sparse list": (
        "convert {list} --to scores --sparsity 0.5",
        2,
        "--sparsity is for --to kv_mask",
    ),
    "more heads than listed to convert": (
        "convert {list} --to scores --top 9",
        2,
        "--top 9 is more than the 4 heads",
    ),
    "a score that no head has": (
        "convert {list} --to scores --threshold 3",
        2,
        "no head scores 3",
    ),
    "a statistic of a list": (
        "convert {list} --to scores --statistic mass",
        2,
        "--statistic is for runs of nnheads",
    ),
    "a list over a folder": (
        "convert {list} --to scores -o {empty} --overwrite",
        2,
        "exists; use --overwrite",
    ),
    # claims
    "claims about nothing": (
        "verify {model}",
        2,
        "there are no claims about 'tiny-llama'",
    ),
    "claims that are nowhere": (
        "verify {model} --claims nowhere",
        2,
        "no file 'nowhere'",
    ),
    "claims that are none": (
        "verify {model} --claims {list}",
        2,
        "holds no claims",
    ),
    "claims that are not JSON": (
        "verify {model} --claims {file}",
        2,
        "is not JSON: Expecting value",
    ),
    "claims of no name": (
        "verify reference --only zz",
        2,
        "--only 'zz' names no claim",
    ),
    "published files nowhere": (
        "verify reference --files nowhere",
        2,
        "no folder 'nowhere'",
    ),
    "claims into a file": ("verify reference -o {file}", 2, "--output.* is a file"),
    # results again
    "no result to repeat": (
        "rerun nowhere",
        2,
        "no file 'nowhere'",
    ),
    "a folder of no run": (
        "rerun {empty}",
        2,
        r"empty has no run\.json",
    ),
    "half a character in needles": (
        "detect retrieval --needles {surrogate}",
        2,
        "half a character",
    ),
    "a pipe as a haystack": ("detect retrieval {model} --haystack {pipe}", 2, "no .txt file"),
    "steering from texts to themselves": (
        "steer {model} --prompt the --toward {four_texts} --away {four_texts}",
        2,
        "no direction leads between them",
    ),
    "a file that unpacks to gigabytes": ("rerun {bomb}", 2, "GiB of memory"),
    "a list as a result": ("rerun {list}", 2, "cannot be read as netCDF"),
    "a result of others": (
        "rerun {ranked}",
        2,
        "was not written by nnheads: it does not record history, arguments",
    ),
    "a tolerance of less than none": (
        "rerun {ranked} --tolerance -1",
        2,
        "--tolerance -1.0 is not possible",
    ),
}
ROWS = {"two rows of tokens": 3}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_with_the_right_exit_code(name, places, tmp_path, monkeypatch, capfd):
    given, code, message = CASES[name]
    arguments = [
        word.format(**places) for word in (given.split() if isinstance(given, str) else given)
    ]
    if "-o" not in arguments:
        arguments += ["-o", str(tmp_path / "out")]
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(SystemExit) as done:
        cli.app(arguments)
    out, err = capfd.readouterr()
    assert (done.value.code, out) == (code, ""), err
    assert len(err.splitlines()) == ROWS.get(name, 1) and err.startswith("error: "), err
    assert re.search(message, err), err
    assert "Traceback" not in err and not list(scratch.iterdir())
    assert not [
        path
        for path in (tmp_path / "out").rglob("*")
        if path.name.startswith(".") or path.suffix == ".png"
    ]


def test_a_refusal_leaves_what_was_there_as_it_was(places):
    """Runs after the table above in the same process, or alone: nothing may have touched what the
    user had.
    """
    assert Path(places["file"]).read_text() == "mine"
    for name, record in (
        ("another", '{"arguments": {"seed": 5}, "complete": true}'),
        ("corrupt", '{"arguments": '),
    ):
        files = [path for path in Path(places[name]).rglob("*") if path.is_file()]
        assert [path.read_text() for path in files] == [record]


def test_the_model_of_these_tests_is_sound(places, tmp_path, capfd):
    """Otherwise the table would prove nothing."""
    with pytest.raises(SystemExit) as done:
        cli.app(["patch", places["model"], "-o", str(tmp_path)])
    assert done.value.code == 0 and "heads with the strongest effect" in capfd.readouterr().out
