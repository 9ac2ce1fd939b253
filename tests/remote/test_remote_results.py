"""What comes back from a server is data: nothing in it runs, and it has limits."""

from __future__ import annotations

import io
import pickle
import zipfile

import pytest
import torch
import zstandard

from nnheads.errors import RunError
from nnheads.remote import results
from nnheads.remote.results import Foreign, address_of, inflated, unpacked


class Runs:
    """What a pickle of a stranger does."""

    def __reduce__(self):
        return pytest.fail, ("code of a server was run",)


def stored(value) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("compressed", [True, False])
def test_tensors_and_plain_data_come_through(compressed):
    sent = {"scores": torch.arange(6.0).reshape(2, 3), "names": ["a", (1, 2.5, None)]}
    content = stored(sent)
    content = zstandard.ZstdCompressor().compress(content) if compressed else content
    found = unpacked(content, compressed)
    assert torch.equal(found["scores"], sent["scores"]) and found["names"] == sent["names"]


@pytest.mark.parametrize("value", [{"x": Runs()}, Runs(), [torch.ones(1)], 3])
def test_anything_else_is_not_read(value):
    with pytest.raises(Foreign):
        unpacked(stored(value), compressed=False)


def test_bytes_that_are_no_result_are_an_error_and_run_nothing():
    for content in (b"", b"<html>who are you?</html>", pickle.dumps(Runs())):
        with pytest.raises((zipfile.BadZipFile, EOFError)):
            unpacked(content, compressed=False)


def test_what_would_fill_the_memory_is_refused_before_it_does(monkeypatch):
    monkeypatch.setattr(results, "LARGEST", 10_000)
    bomb = zstandard.ZstdCompressor().compress(bytes(100_000))
    assert len(bomb) < 1000
    with pytest.raises(RunError, match="nobody asked for"):
        inflated(bomb)
    with pytest.raises(RunError, match="nobody asked for"):
        unpacked(stored({"x": torch.zeros(5000)}), compressed=False)


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("result/7", "http://here:8000/result/7"),
        ("/result/7", "http://here:8000/result/7"),
        ("http://here:8000/x", "http://here:8000/x"),
        ("https://bucket.store/x?sign=1", "https://bucket.store/x?sign=1"),
    ],
)
def test_results_are_fetched_from_the_server_or_over_https(url, place):
    assert address_of("http://here:8000", url) == place


@pytest.mark.parametrize(
    "url",
    [
        ["a"],
        {"a": 1},
        7,
        "a\0b",
        "a\r\nb",
        "http://[bad/x",
        "http://here:99999/x",
        "http://elsewhere/x",
        "http://here:9/x",
        "file:///etc/passwd",
        "ftp://here:8000/x",
    ],
)
def test_and_from_nowhere_else(url):
    with pytest.raises(RunError, match="from the server itself, or over https"):
        address_of("http://here:8000", url)
