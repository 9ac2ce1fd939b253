"""Result folders: what is written comes back, appears whole or not at all, and is never mixed with
another run.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import warm
import xarray as xr
from hypothesis import example, given
from hypothesis import strategies as st
from random_models import build, tiny, words_tokenizer

from nnheads.errors import BadInput, RunError
from nnheads.prompts.ioi import ioi
from nnheads.runs import provenance as origin
from nnheads.runs import store
from nnheads.runs.folder import Run, item_of
from nnheads.runs.provenance import prompts_hash, provenance
from nnheads.runs.store import load, netcdf_value, save, write


@pytest.fixture
def dataset() -> xr.Dataset:
    awkward = {
        "yes": True,
        "no": np.bool_(False),
        "nothing": None,
        "mapping": {"a": [1, None]},
        "path": Path("a/b"),
        "text": "“ä”",
        "empty": "",
        "number": 3,
        "fraction": 0.5,
        "list": ["a", "b"],
        "array": np.array([1, 2]),
        "flags": np.array([True, False]),
        "half": np.float16(0.5),
        "huge": 10**30,
        "not_a_number": float("nan"),
    }
    values = xr.DataArray(
        np.arange(6, dtype=np.float32).reshape(2, 3), dims=("batch", "layer"), attrs=awkward
    )
    values[0, 0] = np.nan
    return xr.Dataset(
        {
            "effect": values,
            "right": ("batch", np.array([True, False])),
            "half": ("batch", np.array([0.5, 1.5], np.float16)),
            "alone": ((), np.int8(3)),
        },
        {"batch": ("batch", [4, 9], awkward), "text": ("batch", ["“a”", ""])},
        awkward,
    )


def test_a_file_says_what_its_coordinates_are(tmp_path):
    own = {"long_name": "heads knocked out", "units": "heads"}
    dataset = xr.Dataset(
        {"effect": (("batch", "layer", "k"), np.zeros((2, 1, 1)))},
        {
            "layer": [0],
            "k": ("k", [1], own),
            "role_END": ("batch", [3, 4]),
            "answer_text": ("batch", ["Mary", "John"]),
            "of_ones_own": ("batch", ["a", "b"]),
        },
    )
    before = dataset.copy(deep=True)
    again = load(save(tmp_path / "heads.nc", dataset))
    assert dataset.identical(before), "saving must not change what is saved"
    assert again["layer"].attrs == {"long_name": "layer, counted from 0", "units": "1"}
    assert again["k"].attrs == own, "what a coordinate says itself stays"
    end = again["role_END"].attrs["long_name"]
    assert "END" in end and "padded row" in end and "padding on the left" in end
    assert again["answer_text"].attrs == {
        "long_name": "answer, without a blank that its token may begin with"
    }
    assert again["of_ones_own"].attrs == {}, "nothing is made up"


def test_awkward_attributes_survive_netcdf(dataset, tmp_path):
    before = dataset.copy(deep=True)
    again = load(save(tmp_path / "a" / "scores.nc", dataset))
    assert dataset.identical(before), "saving must not change what is saved"
    for attributes in (again.attrs, again["effect"].attrs, again["batch"].attrs):
        assert attributes["yes"] == 1 and attributes["no"] == 0
        assert attributes["nothing"] == "null" and json.loads(attributes["mapping"]) == {
            "a": [1, None]
        }
        assert (
            attributes["path"] == "a/b"
            and attributes["text"] == "“ä”"
            and attributes["empty"] == ""
        )
        assert (
            attributes["number"] == 3
            and attributes["fraction"] == 0.5
            and attributes["half"] == 0.5
        )
        assert json.loads(attributes["list"]) == ["a", "b"] and attributes["array"].tolist() == [
            1,
            2,
        ]
        assert np.array(attributes["flags"]).tolist() == [1, 0]
        assert attributes["huge"] == str(10**30) and np.isnan(attributes["not_a_number"])
    np.testing.assert_array_equal(again["effect"], dataset["effect"])
    assert again["effect"].dtype == np.float32 and again["half"].dtype == np.float32
    assert again["right"].values.tolist() == [True, False] and int(again["alone"]) == 3
    assert again["text"].values.tolist() == ["“a”", ""] and again["batch"].values.tolist() == [4, 9]
    assert again.to_dataframe()["effect"].iloc[1] == 1.0


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs", "Cc"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@given(json_like)
def test_every_attribute_value_can_be_written(tmp_path_factory, value):
    path = tmp_path_factory.mktemp("attributes", numbered=True) / "a.nc"
    again = load(save(path, xr.Dataset(attrs={"value": value}))).attrs["value"]
    wanted = netcdf_value(value)
    assert again == wanted or (wanted != wanted and again != again)


def test_a_writer_that_fails_half_way_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "run.json"
    path.write_text("old")

    def half(target):
        target.write_text("new but only ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(
        RunError,
        match=r"cannot write .*run\.json: No space left on device",
    ):
        write(path, half)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(RunError):
        write(tmp_path / "other.json", half)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ZeroDivisionError("ours")])
def test_an_interrupt_or_a_bug_passes_but_leaves_nothing(tmp_path, error):
    def interrupted(target):
        target.write_text("half")
        raise error

    with pytest.raises(type(error)):
        write(tmp_path / "a.txt", interrupted)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [OSError(), RuntimeError(""), RuntimeError("one\ntwo")])
def test_an_error_without_words_is_still_one_line(tmp_path, error):
    def failing(_):
        raise error

    with pytest.raises(RunError, match="cannot write") as failure:
        write(tmp_path / "a.txt", failing)
    assert len(str(failure.value).splitlines()) == 1


def test_files_have_the_permissions_of_plain_files(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("")
    assert (
        write(tmp_path / "a.txt", lambda path: path.write_text("x")).stat().st_mode
        == plain.stat().st_mode
    )


def test_a_file_that_is_missing_or_no_netcdf_is_refused(tmp_path):
    with pytest.raises(BadInput, match="no file"):
        load(tmp_path / "none.nc")
    for content in (b"", b"no netCDF", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        path = tmp_path / "bad.nc"
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"bad\.nc cannot be read as netCDF") as refusal:
            load(path)
        assert len(str(refusal.value).splitlines()) == 1


def test_a_truncated_file_is_refused(dataset, tmp_path):
    path = save(tmp_path / "scores.nc", dataset)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadInput, match="cannot be read as netCDF"):
        load(path)


# ---- one folder per run


def run(root, **changes) -> Run:
    options = {"overwrite": changes.pop("overwrite", False), "item": changes.pop("item", "")}
    return Run(root, "ioi", "owner/name", "main", {"seed": 0, "layers": None, **changes}, **options)


def test_the_folder_names_recipe_model_and_revision(tmp_path):
    assert run(tmp_path).folder == tmp_path / "ioi" / "owner--name" / "main"
    assert run(tmp_path, item="x-1").folder == tmp_path / "ioi" / "owner--name" / "main" / "x-1"
    assert (
        Run(tmp_path, "ioi", "m", "refs/pr/3", {}).folder == tmp_path / "ioi" / "m" / "refs--pr--3"
    )
    (tmp_path / "my model").mkdir()
    assert (
        Run(tmp_path, "ioi", str(tmp_path / "my model"), "local", {}).folder.parent.name
        == "my model"
    )


def test_an_output_that_is_a_file_or_cannot_be_written_is_one_line(tmp_path):
    file = tmp_path / "file"
    file.write_text("mine")
    for root in (file, file / "deeper", Path("/proc/nnheads"), Path("/dev/null")):
        with pytest.raises(
            RunError, match=rf"cannot write {root}.*; what was finished before is kept"
        ) as failure:
            run(root)
        assert len(str(failure.value).splitlines()) == 1
    assert file.read_text() == "mine"


def test_a_read_only_folder_is_one_line(tmp_path, monkeypatch, dataset):
    first = run(tmp_path)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(store.tempfile, "mkstemp", refuse)
    with pytest.raises(RunError, match=r"cannot write .*\.(nc|json): Permission denied"):
        first.save(scores=dataset)


FULL_DISK = """
import resource, sys
import numpy as np, xarray as xr
from nnheads.runs import provenance as origin
from nnheads.runs import store
from nnheads.errors import RunError
folder = store.Path(sys.argv[1])
noise = xr.Dataset({"a": ("x", np.random.default_rng(0).normal(size=200_000))})
store.save(folder / "early.nc", noise)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    store.save(folder / "late.nc", noise)
except RunError as error:
    print(error)
"""


def test_a_full_disk_is_one_line_and_earlier_files_stay(tmp_path):
    done = warm.run("-c", FULL_DISK, tmp_path)
    assert done.returncode == 0 and done.stderr == ""
    assert re.fullmatch(
        r"cannot write .*late\.nc: .+; what was finished before is kept\n", done.stdout
    )
    assert [path.name for path in tmp_path.iterdir()] == ["early.nc"]
    assert load(tmp_path / "early.nc")["a"].shape == (200_000,)


@given(st.lists(st.text(max_size=400), min_size=1, max_size=3))
@example(["a" * 5000])
@example(["../../etc/passwd"])
@example(["\ud800"])
@example(["When Mary and John went to the market, John gave the book to"])
def test_any_text_names_a_folder(tmp_path_factory, texts):
    name = item_of(*texts)
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,80}", name) and name == item_of(*texts)
    assert name != item_of(*texts, "") and name != item_of(texts[0] + "x", *texts[1:])


def test_items_are_named_by_their_first_words():
    assert re.fullmatch(
        r"when-mary-and-john-went-[0-9a-f]{6}", item_of("When Mary and John went to the market")
    )


# ---- provenance

PROMISED = (
    "Conventions",
    "title",
    "source",
    "references",
    "history",
    "arguments",
    "packages",
    "tokenizer_sha256",
    "prompts_sha256",
    "seed",
    "git_commit",
    "git_dirty",
    "sample_dims",
)


def test_provenance_names_everything_and_no_place_of_this_machine(
    llama_folder, tmp_path, monkeypatch
):
    from nnheads.models.load import load as load_model

    monkeypatch.chdir(tmp_path)
    output, pairs = tmp_path / "out", llama_folder / "my pairs.jsonl"
    monkeypatch.setattr(
        sys,
        "argv",
        [
            "/opt/bin/nnheads",
            "ioi",
            str(llama_folder),
            "-o",
            str(output),
            f"--prompts={pairs}",
            "--layers",
            "0-1",
        ],
    )
    model = load_model(str(llama_folder))
    prompts = ioi(model.tokenizer, 3, seed=4)
    arguments = {
        "output": output,
        "prompts": pairs,
        "model": str(llama_folder),
        "seed": 4,
        "noising": False,
    }
    attributes = provenance(
        title="t",
        model=model,
        name=str(llama_folder),
        prompts=prompts,
        arguments=arguments,
        references="r",
    )
    assert set(PROMISED) <= set(attributes)
    assert all(
        isinstance(value, str | int | float) and not isinstance(value, bool)
        for value in attributes.values()
    )
    for name, value in attributes.items():
        assert not re.search(r"(?<![\w.:/])/\w", str(value)), (
            f"{name} holds an absolute path: {value}"
        )
        assert str(tmp_path) not in str(value) and str(llama_folder.parent) not in str(value)
    assert (
        attributes["seed"] == 4
        and attributes["model"] == "tiny-llama"
        and attributes["revision"] == "local"
    )
    source = json.loads(attributes["source"])
    assert (
        source["dtype"] == "float32"
        and source["attention"] == "sdpa"
        and source["commit"].startswith("sha256:")
    )
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ nnheads ioi .*--layers 0-1", attributes["history"]
    )
    assert "my pairs.jsonl" in attributes["history"] and "tiny-llama" in attributes["history"]
    assert {"nnsight", "torch", "transformers"} <= set(json.loads(attributes["packages"]))
    assert attributes["prompts_sha256"] == prompts_hash(prompts)
    saved = load(save(tmp_path / "a.nc", xr.Dataset(attrs=attributes))).attrs
    assert saved == attributes


def test_a_text_that_starts_with_a_slash_is_no_path(monkeypatch):
    monkeypatch.setattr(
        sys, "argv", ["nnheads", "inspect", "/ is a slash", "--remote=http://host/a"]
    )
    assert origin.command() == "nnheads inspect '/ is a slash' --remote=http://host/a"


def test_the_prompts_hash_sees_every_variable():
    prompts = ioi(words_tokenizer(), 3)
    hashes = {prompts_hash(prompts)}
    for name in prompts.data_vars:
        changed = prompts.copy(deep=True)
        changed[name].values.flat[0] += 1
        hashes.add(prompts_hash(changed))
    assert len(hashes) == len(prompts.data_vars) + 1
    renamed = prompts.rename(answer="wrong", wrong="answer")
    assert prompts_hash(renamed) not in hashes
    wide = xr.Dataset({"token": (("a", "b"), np.arange(6).reshape(2, 3))})
    assert prompts_hash(wide) != prompts_hash(
        xr.Dataset({"token": (("a", "b"), np.arange(6).reshape(3, 2))})
    )
    assert prompts_hash(prompts) == prompts_hash(prompts.copy(deep=True))


def test_the_fingerprint_sees_the_weights_the_config_and_nothing_else(tmp_path):
    build("llama").save_pretrained(tmp_path / "a")
    build("llama").save_pretrained(tmp_path / "b")
    build("llama", seed=1).save_pretrained(tmp_path / "c")
    one, same, other = (origin.folder_fingerprint(tmp_path / name) for name in "abc")
    assert one == same != other
    (tmp_path / "b" / "README.md").write_text("a note")
    assert origin.folder_fingerprint(tmp_path / "b") == one
    (tmp_path / "b" / "config.json").write_text("{}")
    assert origin.folder_fingerprint(tmp_path / "b") != one


@pytest.mark.parametrize("size", [3 << 20, 80 << 20])
def test_the_fingerprint_sees_a_layer_in_the_middle_of_a_large_file(tmp_path, size):
    path = tmp_path / "model.safetensors"
    with path.open("wb") as file:
        file.truncate(size)
    before = origin.folder_fingerprint(tmp_path)
    with path.open("r+b") as file:
        file.seek(size // 2 - 500_000)
        file.write(b"\1" * 1_100_000)
    assert origin.folder_fingerprint(tmp_path) != before


def test_the_tokenizer_hash_does_not_depend_on_how_it_was_last_used():
    model, _ = tiny("llama")
    before = origin.tokenizer_hash(model.tokenizer)
    model.tokenizer(["Mary", "Mary and John"], padding=True, truncation=True, max_length=2)
    assert origin.tokenizer_hash(model.tokenizer) == before


def test_git_state_is_of_this_checkout_only(monkeypatch, tmp_path):
    commit, dirty = origin.git_state()
    assert re.fullmatch(r"[0-9a-f]{40}|", commit) and dirty in (0, 1)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(
        ["git", "-C", str(tmp_path), *identity, "commit", "-q", "--allow-empty", "-m", "x"],
        check=True,
    )
    installed = tmp_path / "site-packages" / "results.py"
    installed.parent.mkdir()
    installed.write_text("")
    monkeypatch.setattr(origin, "__file__", str(installed))
    assert origin.git_state() == ("", 0), (
        "someone else's repository around an installed package says nothing"
    )
    monkeypatch.setenv("PATH", "")
    assert origin.git_state() == ("", 0)
