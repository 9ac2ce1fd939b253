"""Interventions on disk: what is read is what was written, and what is wrong is said in a line,
with nothing run.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import warm
from hypothesis import given, settings
from hypothesis import strategies as st
from random_models import tiny
from swaps import pairs

from nnheads import interventions as iv
from nnheads.errors import BadInput, RunError
from nnheads.interventions import files
from nnheads.interventions.apply import run
from nnheads.interventions.files import JSON_NAME, TENSORS_NAME, load, push, save
from nnheads.interventions.operations import OPERATIONS, FromSource
from nnheads.interventions.positions import At
from nnheads.interventions.schema import SITES

WIDTH = 4
NAMES = st.text(st.characters(codec="utf-8"), max_size=6).filter(
    lambda name: name != "__metadata__"
)
NUMBERS = st.integers(-1000, 1000) | st.floats(allow_nan=False, allow_infinity=False)
CHOICES = st.none() | st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(tuple)
POSITIONS = st.one_of(
    st.sampled_from(["all", "prompt", "answer", "decode"]).map(At),
    st.lists(st.integers(-9, 9), min_size=1, max_size=3).map(
        lambda values: At("index", tuple(values))
    ),
    st.tuples(st.none() | st.integers(-9, 9), st.none() | st.integers(-9, 9)).map(
        lambda ends: At("slice", ends)
    ),
    st.text(max_size=5).map(lambda name: At("role", (name,))),
    st.lists(st.integers(0, 9), min_size=1, max_size=3).map(
        lambda values: At("steps", tuple(values))
    ),
)


@st.composite
def interventions(draw) -> iv.Intervention:
    vector, rotation, number = draw(st.lists(NAMES, min_size=3, max_size=3, unique=True))
    dtype = draw(st.sampled_from([torch.float32, torch.float64, torch.bfloat16]))
    tensors = {
        vector: torch.arange(float(WIDTH), dtype=dtype),
        rotation: torch.eye(5)[:, :WIDTH].to(dtype),
        number: torch.tensor(0.5, dtype=dtype),
    }
    sources, edits = 0, []
    for count in range(draw(st.integers(0, 4))):
        name = draw(st.sampled_from(sorted(set(OPERATIONS) - {"function", "combine"})))
        options: dict = {}
        if issubclass(OPERATIONS[name], FromSource):
            options = {
                "source": draw(st.integers(0, sources)),
                "source_at": draw(st.none() | POSITIONS),
            }
            sources = max(sources, options["source"] + 1)
        if name in ("add", "subtract", "set"):
            options["value"] = draw(st.just(vector) | NUMBERS)
        if name in ("add", "subtract", "addsource"):
            options["scale"] = draw(NUMBERS)
        options.update(
            {
                "mean": {"value": vector},
                "scale": {"factor": draw(NUMBERS)},
                "collect": {"key": f"{count}"},
                "noise": {"level": draw(NUMBERS), "seed": draw(st.integers(0, 2**40))},
                "rotate": {
                    "rotation": rotation,
                    "columns": draw(st.sampled_from([None, (0, 2), (3,)])),
                },
                "lowrank": {"rotation": rotation},
                "pca": {"rotation": rotation},
                "boundless": {
                    "rotation": rotation,
                    "boundary": number,
                    "temperature": draw(st.floats(0.01, 50)),
                },
                "mask": {"mask": vector, "rotation": draw(st.sampled_from([None, rotation]))},
            }.get(name, {})
        )
        site = draw(st.sampled_from(sorted(SITES)))
        by_path, by_head = site in ("input", "output"), site in ("z", "q", "k", "v", "pattern")
        place = (
            {"path": draw(st.sampled_from(["a", "b.3.c"]))}
            if by_path
            else {"layer": draw(st.integers(0, 99))}
        )
        units = draw(CHOICES) if by_head else None
        neurons = draw(CHOICES) if site != "pattern" else None
        do = OPERATIONS[name](**options)
        edits.append(iv.Edit(site, do, units=units, neurons=neurons, at=draw(POSITIONS), **place))
    return iv.Intervention(
        *edits, tensors=tensors, mode=draw(st.sampled_from(["parallel", "serial"]))
    )


@settings(max_examples=100)
@given(interventions())
def test_what_is_read_is_what_was_written(tmp_path_factory, intervention):
    folder = tmp_path_factory.mktemp("intervention")
    assert save(intervention, folder, model="tiny") == folder
    assert load(folder) == intervention
    record = json.loads((folder / JSON_NAME).read_text())
    assert (record["version"], record["model"]) == (1, "tiny")
    save(load(folder), folder, model="tiny")
    assert json.loads((folder / JSON_NAME).read_text()) == record


FRESH = """
import sys, numpy, torch, xarray
torch.set_num_threads(1)
sys.path.insert(0, "tests")
from random_models import tiny
from nnheads.interventions.files import load
from nnheads.interventions.apply import run
base, source = (xarray.load_dataset(f"{sys.argv[1]}/{name}.nc") for name in ("base", "source"))
logits = run(tiny("qwen3")[0], load(sys.argv[1]), base, [source]).edited
numpy.save(f"{sys.argv[1]}/logits.npy", logits.numpy())
"""


def test_a_fresh_process_gives_the_same_logits_bit_for_bit(tmp_path, padded):
    generator = torch.Generator().manual_seed(0)
    rotation = torch.linalg.qr(torch.randn(32, 3, generator=generator))[0]
    intervention = iv.Intervention(
        iv.Edit("z", iv.LowRank(), layer=1, units=(0, 3), at=iv.index(-1)),
        iv.Edit("resid_post", iv.Add("direction", scale=0.37), layer=0),
        tensors={"rotation": rotation, "direction": torch.randn(48, generator=generator)},
    )
    base = pairs(padded)
    source = base.assign(token=base["corrupted"])
    expected = run(tiny("qwen3")[0], intervention, base, [source])
    save(intervention, tmp_path)
    base.to_netcdf(tmp_path / "base.nc")
    source.to_netcdf(tmp_path / "source.nc")
    root = Path(__file__).parent.parent.parent
    assert warm.run("-c", FRESH, tmp_path, cwd=root).returncode == 0
    assert np.array_equal(np.load(tmp_path / "logits.npy"), expected.edited.numpy())
    assert not torch.equal(expected.edited, expected.original)


@pytest.fixture
def folder(tmp_path) -> Path:
    tensors = {"direction": torch.ones(3)}
    return save(
        iv.Intervention(iv.Edit("z", iv.Add("direction"), layer=0, units=(1,)), tensors=tensors),
        tmp_path / "saved",
    )


def rewrite(folder: Path, change) -> None:
    record = json.loads((folder / JSON_NAME).read_text())
    change(record)
    (folder / JSON_NAME).write_text(json.dumps(record))


def first(record: dict) -> dict:
    return record["edits"][0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda r: r.update(version=2), r"has version 2; this nnheads reads 1 to 1: update it"),
        (lambda r: r.update(version="1"), r"has version '1'; this nnheads reads 1 to 1"),
        (lambda r: r.update(version=0), r"has version 0"),
        (lambda r: r.update(format="other"), r"is no intervention of nnheads: its format is not"),
        (lambda r: r.pop("edits"), r"'edits' is missing or no list"),
        (lambda r: r.update(tensors=[]), r"'tensors' is missing or no dict"),
        (lambda r: r.update(mode=3), r"'mode' is missing or no str"),
        (
            lambda r: r.update(mode="both"),
            r"json: mode 'both' is not known; use parallel or serial",
        ),
        (lambda r: r["edits"].append(3), r"edit 1 cannot be read: TypeError"),
        (lambda r: r["edits"].append({}), r"edit 1 cannot be read: KeyError 'do'"),
        (lambda r: first(r).update(do="add"), r"edit 0 cannot be read: AttributeError"),
        (lambda r: first(r).update(do={}), r"edit 0 cannot be read: KeyError 'name'"),
        (
            lambda r: first(r).update(do={"name": "erase"}),
            r"edit 0: operation 'erase' is not known; use one of zero",
        ),
        (lambda r: first(r)["do"].update(name=[]), r"edit 0: operation \(\) is not known"),
        (
            lambda r: first(r)["do"].update(strength=2),
            r"edit 0 cannot be read: TypeError .*argument 'strength'",
        ),
        (
            lambda r: first(r)["do"].update(scale="2"),
            r"edit 0: scale of add is '2'; expected a number",
        ),
        (
            lambda r: first(r)["do"].update(scale=None),
            r"edit 0: scale of add is None; expected a number",
        ),
        (
            lambda r: first(r)["do"].update(value=None),
            r"edit 0: value of add is None; expected a number, a tensor, or the name",
        ),
        (
            lambda r: first(r)["do"].update(value="other"),
            r"json: add needs a tensor 'other'.* direction",
        ),
        (
            lambda r: first(r).update(colour="red"),
            r"edit 0 cannot be read: TypeError .*argument 'colour'",
        ),
        (lambda r: first(r).update(site="nowhere"), r"edit 0: site 'nowhere' is not known"),
        (
            lambda r: first(r).update(layer=1.5),
            r"edit 0: layer 1.5 is not possible; layers count from 0",
        ),
        (lambda r: first(r).update(layer=True), r"edit 0: layer True is not possible"),
        (
            lambda r: first(r).update(units="all"),
            r"edit 0: units 'all' are not possible; name each once",
        ),
        (lambda r: first(r).update(units=[0, 0.5]), r"edit 0: units \(0, 0.5\) are not possible"),
        (lambda r: first(r).update(at=[]), r"edit 0 cannot be read: IndexError"),
        (lambda r: first(r).update(at=3), r"edit 0 cannot be read: TypeError"),
        (
            lambda r: first(r).update(at=["somewhere"]),
            r"edit 0: position 'somewhere' is not known; use one of all",
        ),
        (
            lambda r: first(r).update(at=["index", "last"]),
            r"edit 0: position 'index' cannot be \('last',\); it means",
        ),
        (
            lambda r: r["tensors"].update(more={"shape": [2]}),
            r"tensor 'more' should have shape \[2\], found none",
        ),
        (
            lambda r: r["tensors"].update(direction={"shape": [2]}),
            r"'direction' should have shape \[2\], found \[3\]",
        ),
        (
            lambda r: r["tensors"].update(direction=3),
            r"'direction' should have shape None, found \[3\]",
        ),
        (
            lambda r: r["tensors"].pop("direction"),
            r"json: add needs a tensor 'direction'.* none",
        ),
    ],
)
def test_records_that_are_wrong_are_refused(folder, change, says):
    rewrite(folder, change)
    with pytest.raises(BadInput, match=says) as refused:
        load(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, '{"format": ', "\ud800".encode("utf-8", "surrogatepass")]
)
def test_what_is_not_json_is_refused(folder, text):
    (folder / JSON_NAME).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(BadInput, match=r"intervention.json is not JSON: [^\n]+$"):
        load(folder)


def test_places_without_an_intervention_are_refused(tmp_path, folder, monkeypatch):
    with pytest.raises(BadInput, match=r"is a folder without intervention.json"):
        load(tmp_path)
    with pytest.raises(BadInput, match=r"no folder './nothing'"):
        load("./nothing")
    with pytest.raises(BadInput, match=r"cannot load 'nobody/nothing' from the Hub: [^\n]+"):
        load("nobody/nothing")
    (folder / TENSORS_NAME).unlink()
    with pytest.raises(BadInput, match=r"no file '.*tensors.safetensors'"):
        load(folder)


class Marks:
    """Unpickling this writes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("how", ["pickle", "torch"])
def test_hostile_pickles_are_never_unpickled(folder, tmp_path, how):
    marker = tmp_path / "executed"
    with (folder / TENSORS_NAME).open("wb") as file:
        if how == "pickle":
            pickle.dump({"direction": Marks(marker)}, file)
        else:
            torch.save({"direction": Marks(marker)}, file)
    with pytest.raises(
        BadInput, match=r"tensors.safetensors cannot be read as safetensors: [^\n]+$"
    ):
        load(folder)
    assert not marker.exists()
    pickle.loads(pickle.dumps(Marks(marker)))
    assert marker.exists()  # it would have been seen


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module of a user's that leaves a mark when it is imported."""
    path = tmp_path / "marking_module.py"
    source = "from pathlib import Path\nPath(__file__).with_name('imported').touch()\n\n\n"
    path.write_text(
        source
        + "def middle(base, source):\n    return (base + source) / 2\n\n\ndouble = lambda base:"
        " base * 2\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield path
    sys.modules.pop("marking_module", None)


def test_functions_are_kept_by_path_and_hash_and_run_only_if_trusted(module, padded):
    edits = (
        iv.Edit("z", iv.Combine(function="marking_module:middle"), layer=1),
        iv.Edit("resid_post", iv.Function("marking_module:double"), layer=0),
    )
    folder = save(iv.Intervention(*edits), module.parent / "saved")
    mark = module.with_name("imported")
    says = (
        r"^it runs your function 'marking_module:middle'; load with trust=True if you trust its"
        r" author$"
    )
    with pytest.raises(BadInput, match=says):
        load(folder)
    loaded = load(folder, trust=True)
    assert loaded == iv.Intervention(*edits)
    assert len(loaded.edits[0].do.sha256) == 64
    assert not mark.exists()
    base = pairs(padded)
    changed = run(tiny("llama")[0], loaded, base, [base.assign(token=base["corrupted"])])
    assert mark.exists()
    assert not torch.equal(changed.original, changed.edited)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda text: text.replace("/ 2", "/ 3"),
            "is not the one that was saved: its source has changed",
        ),
        (
            lambda text: text.replace("middle", "other"),
            "cannot be found by its path: no 'middle' in its source",
        ),
        (lambda text: text + "\n)", "cannot be found by its path: "),
    ],
)
def test_a_function_that_changed_is_refused_and_not_run(module, change, says):
    folder = save(
        iv.Intervention(iv.Edit("z", iv.Combine(function="marking_module:middle"), layer=1)),
        module.parent / "saved",
    )
    module.write_text(change(module.read_text()))
    with pytest.raises(BadInput, match=f"function 'marking_module:middle' {says}"):
        load(folder, trust=True)
    module.unlink()
    with pytest.raises(
        BadInput, match="cannot be found by its path: no source file for module 'marking_module'"
    ):
        load(folder, trust=True)
    assert not module.with_name("imported").exists()


def halved(base):
    return base / 2


def test_functions_that_nobody_else_could_import_are_not_saved(tmp_path):
    def local(base):
        return base

    for function in (lambda base: base, local):
        with pytest.raises(
            BadInput, match="cannot be saved: put the function in a module of its own and name it"
        ):
            save(iv.Intervention(iv.Edit("z", iv.Function(function), layer=0)), tmp_path / "saved")
    assert not (tmp_path / "saved").exists()
    save(iv.Intervention(iv.Edit("z", iv.Function(halved), layer=0)), tmp_path / "saved")
    assert load(tmp_path / "saved", trust=True).edits[0].do.function == f"{__name__}:halved"


def test_tensors_that_share_memory_and_parameters_are_saved(tmp_path):
    whole = torch.nn.Parameter(torch.arange(6.0))
    tensors = {"whole": whole, "part": whole[:3], "same": whole}
    loaded = load(save(iv.Intervention(tensors=tensors), tmp_path)).tensors
    assert {name: values.tolist() for name, values in loaded.items()} == {
        "whole": [0, 1, 2, 3, 4, 5],
        "part": [0, 1, 2],
        "same": [0, 1, 2, 3, 4, 5],
    }
    with pytest.raises(BadInput, match="a tensor cannot be named '__metadata__' in a file"):
        save(iv.Intervention(tensors={"__metadata__": whole}), tmp_path)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^cannot write .*file/saved: Not a directory"):
        save(iv.Intervention(), tmp_path / "file" / "saved")
    assert (tmp_path / "file").read_text() == ""


def test_a_layer_that_does_not_exist_is_refused_where_it_meets_the_model(folder, padded):
    rewrite(folder, lambda record: first(record).update(layer=7))
    with pytest.raises(BadInput, match=r"layer 7 does not exist"):
        run(tiny("llama")[0], load(folder), pairs(padded))


class Hub:
    """What huggingface_hub's client is asked."""

    asked: list = []  # noqa: RUF012

    def create_repo(self, repository, **options):
        if repository == "nobody/closed":
            raise ValueError("403 Forbidden\nno right to write")
        self.asked.append((repository, options["private"]))

    def upload_folder(self, *, repo_id, folder_path, allow_patterns):
        self.asked.append(sorted(path.name for path in Path(folder_path).iterdir()))
        return f"https://huggingface.co/{repo_id}"


def test_pushing_uploads_both_files_and_nothing_that_cannot_be_read(folder, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    Hub.asked.clear()
    assert (
        push(load(folder), "somebody/edit", private=True) == "https://huggingface.co/somebody/edit"
    )
    assert push(folder, "somebody/edit").endswith("somebody/edit")
    both = [JSON_NAME, TENSORS_NAME]
    assert Hub.asked == [("somebody/edit", True), both, ("somebody/edit", False), both]
    with pytest.raises(BadInput, match=r"cannot push to 'nobody/closed': 403 Forbidden"):
        push(folder, "nobody/closed")
    rewrite(folder, lambda record: record.update(version=9))
    with pytest.raises(BadInput, match="has version 9"):
        push(folder, "somebody/edit")
    assert len(Hub.asked) == 4


def test_the_hub_gives_a_folder(folder, monkeypatch):
    def download(name, *, revision, allow_patterns):
        assert (name, revision, allow_patterns) == (
            "somebody/edit",
            "v2",
            [JSON_NAME, TENSORS_NAME],
        )
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert load("somebody/edit", revision="v2") == load(folder)
    with pytest.raises(BadInput, match=r"no file '.*intervention.json'"):
        monkeypatch.setattr(
            "huggingface_hub.snapshot_download", lambda *_, **__: str(folder.parent)
        )
        load("somebody/empty")


def test_both_modes_and_no_edits(tmp_path):
    intervention = iv.Intervention(
        iv.Edit("z", iv.Interchange(), layer=0), iv.Edit("z", iv.Zero(), layer=1), mode="serial"
    )
    assert load(save(intervention, tmp_path)) == intervention
    assert files.load(files.save(iv.Intervention(), tmp_path)) == iv.Intervention()
