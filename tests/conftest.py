"""What all tests share: fixtures, and laws that every file and picture of a test must keep.

No network: the Hub is switched off before anything imports it. Nothing large is imported here at
the top, because the process that only hands tests out reads this file too.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Tests run in several processes, and some start others: a core each.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import gc
import json
import warnings

import hypothesis
import pytest

from nnheads.models.families import FAMILIES

# Busy machines make single examples slow, which says nothing; failures print what repeats them.
hypothesis.settings.register_profile(
    "nnheads", deadline=None, database=None, print_blob=True, max_examples=50
)
hypothesis.settings.load_profile("nnheads")


def pytest_collection_finish(session):
    """Leave libraries and tests out of every later search for garbage: a million objects stay.

    What tests leave behind is small, and is looked for a hundred times less often.
    """
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@pytest.fixture(params=sorted(FAMILIES))
def model_type(request) -> str:
    return request.param


@pytest.fixture(scope="session", autouse=True)
def coarse_pictures(tmp_path_factory):
    """Draw the pictures of runs small, and one of each kind.

    tests/test_plot.py draws all of them as users get them.
    """
    from pictures import once

    from nnheads import plot

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plot, "render", once(tmp_path_factory.mktemp("pictures")))
        yield


@pytest.fixture(scope="session", autouse=True)
def files_say_what_they_hold():
    """Refuse a file of a command with a variable or coordinate that does not say what it is.

    No test measures anything for this alone: it sees the files that all of them write. Files of a
    command are those with its provenance.
    """
    from labels import unlabelled

    from nnheads.runs import folder, store
    from nnheads.runs.coordinates import labelled

    def checked(path, dataset):
        lacking = unlabelled(labelled(dataset)) if "Conventions" in dataset.attrs else []
        assert not lacking, f"{path}: {'; '.join(lacking)}"
        return save(path, dataset)

    save = store.save
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(folder, "save", checked)
        patched.setattr(store, "save", checked)
        yield


@pytest.fixture(scope="session")
def reference():
    """The shipped model, loaded once for each process of the tests."""
    import nnheads

    return nnheads.load("reference")


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    """A random Llama saved as a user would have it on disk."""
    from random_models import build, words_tokenizer

    folder = tmp_path_factory.mktemp("models") / "tiny-llama"
    build("llama").save_pretrained(folder)
    words_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def pairs_file(tmp_path_factory):
    """Pairs over two names, so that even a random model is right about some."""
    path = tmp_path_factory.mktemp("prompts") / "pairs.jsonl"
    with path.open("w") as file:
        for place in ("market", "library", "museum", "beach", "hotel", "farm", "airport", "park"):
            for io, subject in (("Mary", "John"), ("John", "Mary")):
                clean = f"When {io} and {subject} went to the {place}, {subject} gave the book to"
                corrupted = f"When {io} and {subject} went to the {place}, {io} gave the book to"
                record = {"clean": clean, "corrupted": corrupted, "answer": io, "wrong": subject}
                file.write(json.dumps(record) + "\n")
    return path


@pytest.fixture
def padded():
    """Two prompts of different length, padded on the left: ids, mask, the second one's length."""
    import torch
    from random_models import VOCABULARY

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, VOCABULARY, (2, 9), generator=generator)
    mask = torch.ones_like(ids)
    mask[1, :4] = 0
    return ids, mask, 5


@pytest.fixture
def breaking(monkeypatch):
    """A model whose tokenizer says that some token holds a line break."""
    import copy

    def with_break(model, token: int):
        tokenizer = copy.deepcopy(model.tokenizer)
        plain = tokenizer.decode
        tokenizer.decode = lambda ids: plain(ids) + ("\n" if token in ids else "")
        monkeypatch.setattr(model, "tokenizer", tokenizer)
        return model

    return with_break


@pytest.fixture
def quiet_libraries():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server on this machine that trusts everybody, one for each process of the tests."""
    from serving import Loopback

    own = Loopback(tmp_path_factory.mktemp("trusted") / "store")
    yield own
    own.stop()


@pytest.fixture(scope="session")
def sandbox(tmp_path_factory):
    """A server that gives no weights and no gradients."""
    from serving import Loopback

    own = Loopback(tmp_path_factory.mktemp("sandbox") / "store", "--sandbox")
    yield own
    own.stop()


@pytest.fixture(scope="session")
def ndif(tmp_path_factory):
    """NDIF's own runner, where NNHEADS_NDIF_PYTHON names a Python that has it."""
    from serving import NDIF, Loopback

    if not NDIF:
        pytest.skip("no NDIF runner: set NNHEADS_NDIF_PYTHON, see CONTRIBUTING.md")
    own = Loopback(tmp_path_factory.mktemp("ndif") / "store", "--ndif")
    yield own
    own.stop()
