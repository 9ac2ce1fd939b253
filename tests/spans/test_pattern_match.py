"""TransformerLens's pattern scores: the fixture by hand, and a model against its whole patterns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from random_models import build, tiny

import nnheads
from nnheads.errors import BadInput
from nnheads.spans.pattern_match import PATTERNS, cells, match, match_text, target

IDS = np.array([7, 1, 2, 3, 1, 2, 3])  # beginning of sequence, then three tokens twice
N = len(IDS)


def ideal(keys: dict[int, int]) -> np.ndarray:
    """A head that puts all mass on one key; rows that are not named attend to key 0."""
    attention = np.zeros((N, N))
    attention[np.arange(N), [keys.get(i, 0) for i in range(N)]] = 1
    return attention


HEADS = {
    "uniform": np.tril(np.ones((N, N))) / np.arange(1, N + 1)[:, None],
    "sink": ideal({}),
    "self": np.eye(N),
    "previous": ideal({i: i - 1 for i in range(1, N)}),
    "duplicate": ideal({4: 1, 5: 2, 6: 3}),
    "induction": ideal({4: 2, 5: 3, 6: 4}),
}
# head -> (mul, mul without the first token, abs) for previous, duplicate, induction
EXPECTED = {
    "uniform": [(0.2276, 0.2480, -0.4020), (0.0728, 0.1156, -0.2830), (0.0728, 0.1156, -0.2830)],
    "sink": [(0.1429, 0.0, -0.5714), (0.0, 0.0, -0.4286), (0.0, 0.0, -0.4286)],
    "self": [(0.0, 0.0, -0.8571), (0.0, 0.0, -0.4286), (0.0, 0.0, -0.4286)],
    "previous": [(0.8571, 1.0, 0.8571), (0.0, 0.0, -0.4286), (0.0, 0.0, -0.4286)],
    "duplicate": [(0.1429, 0.0, -0.5714), (0.4286, 1.0, 0.4286), (0.0, 0.0, -0.4286)],
    "induction": [(0.1429, 0.0, -0.5714), (0.0, 0.0, -0.4286), (0.4286, 1.0, 0.4286)],
}


def score(attention: np.ndarray, pattern: str, kind: str, exclude_bos: bool) -> float:
    wanted, rest = cells(IDS, pattern, exclude_bos, exclude_current=False)
    return float(match((attention * wanted).sum(), (attention * rest).sum(), wanted.sum(), N, kind))


@pytest.mark.parametrize("head", HEADS)
def test_fixture(head):
    for pattern, (plain, without_first, absolute) in zip(PATTERNS, EXPECTED[head]):
        assert score(HEADS[head], pattern, "mul", False) == pytest.approx(plain, abs=1e-4)
        assert score(HEADS[head], pattern, "mul", True) == pytest.approx(without_first, abs=1e-4)
        assert score(HEADS[head], pattern, "abs", False) == pytest.approx(
            absolute, abs=5e-4
        )  # abs rounds to 3 places


def test_targets_of_an_immediate_repeat():
    ids = np.array([5, 9, 9])
    assert target(ids, "duplicate_token")[2].tolist() == [0, 1, 0]
    assert target(ids, "induction")[2].tolist() == [0, 0, 1], (
        "the token after the copy is the query itself"
    )


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "bloom", "gpt_neo"])
@pytest.mark.parametrize("kind", ["mul", "abs"])
@pytest.mark.parametrize("exclude", [(False, False), (True, False), (False, True), (True, True)])
def test_a_model_scores_as_its_whole_patterns_do(model_type, kind, exclude):
    model, _ = tiny(model_type)
    text = "the book and the book and the hat"
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        attention = build(model_type, attention="eager")(
            ids, use_cache=False, output_attentions=True
        ).attentions
    attention = torch.cat(attention).double().numpy()
    n = ids.shape[1]
    keep = np.ones((n, n))
    keep[:, 0] *= not exclude[0]
    keep -= keep * np.eye(n) * exclude[1]
    for pattern in PATTERNS:
        wanted = target(ids[0].numpy(), pattern)
        masked = attention * keep
        if kind == "mul":
            plain = (masked * wanted).sum((-1, -2)) / masked.sum((-1, -2))
        else:
            plain = 1 - np.round((np.abs(attention - wanted) * keep).sum((-1, -2)) / n, 3)
        got = match_text(
            model, text, pattern, kind=kind, exclude_bos=exclude[0], exclude_current=exclude[1]
        )
        np.testing.assert_allclose(got, plain, atol=1e-4 if kind == "mul" else 1.1e-3)


@pytest.mark.parametrize(
    ("pattern", "options", "message"),
    [
        ("zigzag", {}, "'zigzag' is not known"),
        ("induction", {"kind": "cosine"}, "measure 'cosine' is not known"),
        (np.eye(2), {}, r"shape \(2, 2\); this text needs \(4, 4\)"),
        (np.ones((4, 4)), {}, "lower triangular"),
    ],
)
def test_what_cannot_be_matched_is_refused(pattern, options, message):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match=message):
        match_text(model, "When Mary and John", pattern, **options)


def test_a_text_without_a_target_scores_nothing():
    model, _ = tiny("llama")
    for kind in ("mul", "abs"):
        assert not match_text(model, "When Mary and John", "induction", kind=kind).any()


def test_a_text_of_one_token_is_refused():
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match="a text of 1 tokens has no pattern"):
        match_text(model, "Mary", "previous_token")


@pytest.mark.parametrize("exclude", [(True, False), (True, True)])
def test_a_head_with_nearly_all_mass_on_the_first_token_has_a_share_of_the_rest(exclude):
    """What is left beside the first token is then less than the rounding of its mass."""
    model = nnheads.load()
    text = " ".join(["river"] * 10)
    ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
    eager = nnheads.load(attn_implementation="eager")._module
    with torch.no_grad():
        attention = (
            torch.cat(eager(ids, use_cache=False, output_attentions=True).attentions)
            .double()
            .numpy()
        )
    keep = np.tril(np.ones(attention.shape[-2:]), -int(exclude[1]))
    keep[:, 0] = 0
    for pattern in PATTERNS:
        wanted = target(ids[0].numpy(), pattern)
        got = match_text(model, text, pattern, exclude_bos=True, exclude_current=exclude[1])
        plain = (attention * keep * wanted).sum((-1, -2)) / (attention * keep).sum((-1, -2))
        assert float(got.min()) >= 0 and float(got.max()) <= 1
        np.testing.assert_allclose(got, plain, atol=1e-4)


def test_where_nothing_is_left_the_score_is_nothing():
    model, _ = tiny("llama")
    assert not match_text(
        model, "Mary John", "previous_token", exclude_bos=True, exclude_current=True
    ).any()
    assert match(np.array([0.0, 2e-30]), np.array([0.0, 1e-30]), 3, 4, "mul").tolist() == [0, 1]
