"""Files of other tools, made here in their formats, and files that pretend to be."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nnheads.errors import BadInput
from nnheads.legacy import read_scores


def test_lists_of_trials(tmp_path):
    path = tmp_path / "retrieval.json"
    path.write_text(json.dumps({"0-1": [0.5, 1.0], "2-0": [0.25], "1-1": []}))
    scores = read_scores(path)
    assert scores["score"].shape == (3, 2)
    assert float(scores["score"][0, 1]) == 0.75 and float(scores["score"][2, 0]) == 0.25
    assert np.isnan(scores["score"][1, 1]) and int(scores["trials"][0, 1]) == 2 and int(scores["trials"][1, 1]) == 0


def test_single_scores_and_records(tmp_path):
    one, two = tmp_path / "one.json", tmp_path / "two.json"
    one.write_text(json.dumps({"1-2": 0.5}))
    two.write_text(json.dumps([{"layer": 1, "head": 2, "score": 0.5}]))
    assert read_scores(one).identical(read_scores(two).assign(score=read_scores(one)["score"]))
    assert float(read_scores(two)["score"][1, 2]) == 0.5 and "trials" not in read_scores(one)


def test_tensors_and_arrays(tmp_path):
    torch.save(torch.arange(6.0).reshape(2, 3), tmp_path / "grid.pt")
    np.save(tmp_path / "iteration.npy", np.array([[1, 0, 0.9], [0, 1, 0.2]]))
    np.save(tmp_path / "truth.npy", np.array([[1, 0], [0, 1]]))
    assert read_scores(tmp_path / "grid.pt")["score"].values.tolist() == [[0, 1, 2], [3, 4, 5]]
    iteration = read_scores(tmp_path / "iteration.npy")["score"]
    assert float(iteration[1, 0]) == pytest.approx(0.9) and np.isnan(iteration[0, 0])
    assert read_scores(tmp_path / "truth.npy")["score"].values.tolist() == [[0, 1], [1, 0]]


class Hostile:
    def __reduce__(self):
        return (exec, ("raise SystemExit('executed')",))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{", "does not hold head scores"),
        ("a.json", b'{"x": 1}', "'x' is not layer-head"),
        ("a.json", b"[]", "no heads in it"),
        ("a.json", b'[{"layer": 1}]', "does not hold head scores"),
        ("a.json", b"3", "does not hold head scores"),
        ("a.pt", b"junk", "does not hold head scores"),
        ("a.npy", b"junk", "does not hold head scores"),
        ("a.txt", b"", r"expected \.json, \.pt, \.npy"),
        ("a.pt", pickle.dumps(Hostile()), "does not hold head scores"),
    ],
)
def test_other_files_are_refused_and_nothing_is_executed(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        read_scores(tmp_path / name)


def test_hostile_pickles_inside_valid_containers_are_refused(tmp_path):
    torch.save({"x": Hostile()}, tmp_path / "a.pt")
    np.save(tmp_path / "a.npy", np.array([Hostile()], dtype=object), allow_pickle=True)
    for name in ("a.pt", "a.npy"):
        with pytest.raises(BadInput, match="does not hold head scores"):
            read_scores(tmp_path / name)


def test_wrong_shapes_and_missing_files(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((2, 4)))
    torch.save(torch.zeros(3), tmp_path / "a.pt")
    for name, message in (("a.npy", r"got shape \(2, 4\)"), ("a.pt", "expected one tensor"), ("b.json", "no file")):
        with pytest.raises(BadInput, match=message):
            read_scores(tmp_path / name)


@given(content=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(content, tmp_path_factory):
    path = tmp_path_factory.mktemp("legacy") / "a.json"
    path.write_bytes(content)
    try:
        read_scores(path)
    except BadInput as error:
        assert str(path) in str(error)
