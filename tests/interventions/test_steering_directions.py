"""Directions against plain hidden states, what steering does, and the sweep of its strength."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from random_models import placed, tiny

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.interventions import steering as swept
from nnheads.interventions.apply import run
from nnheads.interventions.generate import generate
from nnheads.interventions.likelihood import compare, read_positions
from nnheads.interventions.steering_directions import (
    activations_of,
    best_layer,
    direction,
    halves,
    projections,
)
from nnheads.interventions.steering_edits import randomised, scaled, steering
from nnheads.interventions.texts import continuations, in_halves, read_texts

TOWARD = [
    f"{name} and Mary went to the {place}"
    for name in ("John", "Anna")
    for place in ("market", "park", "farm")
]
AWAY = [
    f"the {place} of {name} is 4 ."
    for name in ("John", "Anna")
    for place in ("market", "park", "farm")
][:5]
NEUTRAL = ["input : 3 4 5 6", "what is the code of John ?"]


def hidden_states(texts: list[str]) -> list[np.ndarray]:
    """Residual stream after each layer but the last (which transformers normalises), [layer,
    position, feature].
    """
    model, module = tiny("llama")
    found = []
    for text in texts:
        ids = torch.tensor([model.tokenizer(text)["input_ids"]])
        with torch.no_grad():
            states = module(input_ids=ids, output_hidden_states=True).hidden_states
        found.append(torch.stack(states[1:-1])[:, 0].numpy())
    return found


@pytest.mark.parametrize("at", [iv.index(-1), iv.ALL])
def test_a_direction_is_the_difference_of_means_of_half_the_texts(at):
    model, _ = tiny("llama")
    found = direction(model, TOWARD, AWAY, layers=[0, 1], at=at, batch_size=4, seed=3)
    means = []
    for texts in (TOWARD, AWAY):
        states = [one[:, -1] if at.kind == "index" else one.mean(1) for one in hidden_states(texts)]
        means.append(np.stack(states)[halves(len(texts), 3)].mean(0))
    np.testing.assert_allclose(found["direction"], means[0] - means[1], atol=1e-4)
    np.testing.assert_allclose(found["away"], means[1], atol=1e-4)
    np.testing.assert_allclose(
        found["norm"], np.linalg.norm(means[0] - means[1], axis=-1), rtol=1e-4
    )
    assert (
        found["direction"].dims == ("layer", "feature") and found["direction"].dtype == np.float32
    )
    assert found.attrs["texts_fitted"] == [3, 3] and found.attrs["texts_held_out"] == [3, 2]
    assert all(
        found[name].attrs[key]
        for name in found.data_vars
        for key in ("long_name", "units", "source")
    )


def test_directions_of_heads_are_parts_of_what_the_projection_reads():
    model, _ = tiny("llama")
    found = direction(model, TOWARD, AWAY, site="z", layers=[2])
    assert dict(found["direction"].sizes) == {"layer": 1, "head": 4, "feature": 16}
    assert found["auc"].dims == found["q_value"].dims == ("layer", "head")
    kv = direction(model, TOWARD, AWAY, site="v", layers=[2])
    assert dict(kv["norm"].sizes) == {"layer": 1, "kv_head": 2}
    activations = activations_of(model, read_texts(model.tokenizer, TOWARD), site="z", layers=[2])
    collected = run(
        model,
        iv.Intervention(iv.Edit("z", iv.Collect(), layer=2, at=iv.index(-1))),
        read_texts(model.tokenizer, TOWARD),
    ).collected["collected"]
    np.testing.assert_allclose(activations.reshape(6, 64), collected[:, 0], atol=1e-6)


def test_texts_that_differ_are_told_apart_and_the_same_are_not():
    model, _ = tiny("llama")
    found = direction(model, TOWARD * 3, AWAY * 3, at=iv.ALL)
    assert (found["auc"] == 1).all() and (found["q_value"] < 0.01).all()
    same = direction(model, TOWARD * 3, [*reversed(TOWARD * 3)], at=iv.ALL)
    assert (same["q_value"] > 0.05).all()


def test_steering_carries_one_mean_to_the_other():
    model, _ = tiny("llama")
    found = direction(model, TOWARD, AWAY, layers=[1])
    gave = [text for text, used in zip(AWAY, halves(len(AWAY), 0)) if used]
    read = iv.Edit("resid_post", iv.Collect(), layer=1, at=iv.index(-1))
    added = steering(found, 1)
    moved = run(
        model,
        iv.Intervention(*added.edits, read, tensors=added.tensors),
        read_texts(model.tokenizer, gave),
    ).collected["collected"][:, 0]
    toward = found["away"].sel(layer=1) + found["direction"].sel(layer=1)
    np.testing.assert_allclose(moved.mean(0), toward, atol=1e-4)
    place = projections(found, 1, moved.numpy()[:, None])
    assert place.mean() == pytest.approx(1, abs=1e-4)
    assert projections(found, 1, found["away"].values) == pytest.approx(0, abs=1e-6)


def test_the_strength_is_in_lengths_of_the_direction_or_in_units():
    model, _ = tiny("llama")
    found = direction(model, TOWARD, AWAY, site="z", layers=[0, 1])
    whole, one = steering(found, 1, 2.0, at=iv.DECODE), steering(found, 1, 3.0, head=2, unit=True)
    assert whole.edits == (iv.Edit("z", iv.Add("direction", scale=2.0), layer=1, at=iv.DECODE),)
    assert whole.tensors["direction"].shape == (64,)
    assert one.edits[0].units == (2,) and float(one.tensors["direction"].norm()) == pytest.approx(1)
    more = (iv.Edit("z", iv.Subtract(1.0), layer=0), iv.Edit("z", iv.Scale(2.0), layer=0))
    twice = scaled(iv.Intervention(*whole.edits, *more, tensors=whole.tensors), 2)
    assert [getattr(edit.do, "scale", None) for edit in twice.edits] == [4.0, 2.0, None]


def test_a_random_push_is_as_long_and_points_elsewhere():
    vector = torch.arange(48.0)
    edits = (
        iv.Edit("z", iv.Subtract("a"), layer=0),
        iv.Edit("z", iv.Scale(2.0), layer=0),
        iv.Edit("z", iv.Add(1.0), layer=0),
    )
    given = iv.Intervention(*edits, tensors={"a": vector, "unused": torch.ones(2)})
    drawn = randomised(given, 3)
    assert drawn.edits == given.edits and torch.equal(drawn.tensors["unused"], torch.ones(2))
    assert float(drawn.tensors["a"].norm()) == pytest.approx(float(vector.norm()))
    assert abs(float(torch.cosine_similarity(drawn.tensors["a"], vector, 0))) < 0.5
    assert torch.equal(drawn.tensors["a"], randomised(given, 3).tensors["a"])
    assert not torch.equal(drawn.tensors["a"], randomised(given, 4).tensors["a"])


def test_of_equally_good_layers_the_middle_one_is_steered():
    def table(*auc: float) -> xr.Dataset:
        return xr.Dataset({"auc": ("layer", list(auc))}, {"layer": range(len(auc))})

    assert best_layer(table(0.5, 1.0, 1.0, 1.0)) == 2
    assert best_layer(table(1.0, 0.7, 0.6, 0.6)) == 0
    assert best_layer(table(0.6, 0.995, 0.9, 1.0)) == 1
    heads = xr.Dataset({"auc": (("layer", "head"), [[0.5, 0.6], [0.2, 0.9]])}, {"layer": [4, 5]})
    assert best_layer(heads) == 5


def test_reading_given_texts_is_the_mean_over_what_follows_the_prompt():
    model, _ = tiny("llama")
    prompts = in_halves(model, [*TOWARD[:2], *AWAY[:1]])
    edit = iv.Edit("resid_post", iv.Add(0.7), layer=1, neurons=(3, 8), at=iv.DECODE)
    found = compare(model, iv.Intervention(edit), prompts)
    result = run(
        model,
        iv.Intervention(iv.Edit("resid_post", iv.Add(0.7), layer=1, neurons=(3, 8), at=iv.ANSWER)),
        prompts,
    )
    for row in range(3):
        first, asked = int((1 - prompts["mask"][row]).sum()), int(prompts["prompt_length"][row])
        places = range(first + asked, prompts.sizes["position"])
        old, new = (one[row].log_softmax(-1) for one in (result.original, result.edited))
        token = prompts["token"].values[row]
        expected = np.mean([float(new[place - 1, token[place]]) for place in places])
        assert float(found["log_probability"][row]) == pytest.approx(expected, abs=1e-4)
        divergence = np.mean(
            [float((old[p - 1].exp() * (old[p - 1] - new[p - 1])).sum()) for p in places]
        )
        assert float(found["kl"][row]) == pytest.approx(divergence, abs=1e-4)
    assert (found["kl"] > 1e-3).all() and found["kl"].attrs["units"] == "nat"


def test_positions_of_written_tokens_are_found_in_given_texts():
    model, _ = tiny("llama")
    rows = [[5, 6, 7, 8, 9, 10], [5, 6, 7]]
    prompts = continuations(model, rows, [2, 1])
    assert read_positions(iv.DECODE, prompts).tolist() == [[2, 3, 4, 5], [4, 5, -1, -1]]
    assert read_positions(iv.steps(1, 3), prompts).tolist() == [[3, 5], [5, -1]]
    assert read_positions(iv.PROMPT, prompts).tolist() == [[0, 1], [3, -1]]
    nothing = compare(model, iv.Intervention(), continuations(model, rows, [6, 3]))
    assert nothing["original"].isnull().all()


def test_a_sweep_is_what_its_parts_are(tmp_path):
    model, _ = tiny("llama")
    found = direction(model, TOWARD, AWAY, layers=[1])
    edits = steering(found, 1, at=iv.ANSWER)
    given = {
        "strengths": [0.0, 2.0],
        "toward": TOWARD[:2],
        "away": AWAY[:3],
        "directions": found,
        "layer": 1,
    }
    prompts = ["Mary and John", "the code of"]
    scores = swept.sweep(
        model, edits, prompts, NEUTRAL, **given, new_tokens=4, parts=tmp_path, batch_size=1
    )
    assert dict(scores.sizes) == {"strength": 2, "prompt": 2, "neutral": 2, "text": 5, "draw": 5}
    assert (
        (scores["change"][0] == 0).all()
        and (scores["kl"][0] == 0).all()
        and (scores["kl"][1] > 0).all()
    )
    asked = read_texts(model.tokenizer, prompts)
    written = generate(model, scaled(edits, 2.0), asked, new_tokens=4)
    assert scores["written"].values.tolist() == [written.original_texts, written.texts]
    likely = compare(model, scaled(edits, 2.0), in_halves(model, [*TOWARD[:2], *AWAY[:3]]))
    change = (likely["log_probability"] - likely["original"]).values
    curve = swept.reduced(scores)
    assert float(curve["effect"][1]) == pytest.approx(
        change[:2].mean() - change[2:].mean(), abs=1e-5
    )
    assert float(curve["perplexity"][0]) == pytest.approx(
        np.exp(scores["surprisal"].values[0].mean()), rel=1e-5
    )
    assert curve["perplexity"].attrs["units"] == "1" and curve["kl"].attrs["units"] == "nat"
    assert (scores["control"][0] == 0).all(), "nothing is added"
    each = scores["control"][1].mean("text").values
    for draw in (0, 3):
        other = randomised(edits, swept.APART * draw)
        random = compare(model, scaled(other, 2.0), in_halves(model, [*TOWARD[:2], *AWAY[:3]]))
        change = (random["log_probability"] - random["original"]).values
        assert each[draw] == pytest.approx(change[:2].mean() - change[2:].mean(), abs=1e-5)
    assert len(set(each.tolist())) == 5
    ends = [float(curve[f"random{end}"][1]) for end in ("_lowest", "", "_highest")]
    assert ends == pytest.approx([each.min(), each.mean(), each.max()], abs=1e-6)
    assert all(curve[f"random{end}"].attrs["units"] == "nat" for end in ("", "_lowest", "_highest"))
    again = swept.sweep(model, edits, prompts, NEUTRAL, **given, new_tokens=4)
    for name in ("change", "kl", "surprisal", "projection"):
        np.testing.assert_allclose(scores[name], again[name], atol=1e-5)
    with pytest.raises(BadInput, match="0 draws of a random direction are too few"):
        swept.sweep(model, edits, prompts, NEUTRAL, **given, draws=0)
    alone = swept.sweep(model, edits, prompts, NEUTRAL, strengths=[1.0], new_tokens=2)
    assert set(alone.data_vars) == {"written", "surprisal", "kl"}


def test_a_rehearsed_remote_run_gives_the_same():
    model, _ = tiny("llama")
    for remote in (False, "local"):
        found = placed(remote, direction)(model, TOWARD, AWAY, layers=[1])
        read = placed(remote, compare)(model, steering(found, 1), in_halves(model, NEUTRAL))
        if not remote:
            here = found, read
    np.testing.assert_allclose(found["direction"], here[0]["direction"], atol=1e-6)
    np.testing.assert_allclose(read["kl"], here[1]["kl"], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"toward": TOWARD[:3]}, r"texts toward: 3, too few; give at least 4"),
        ({"away": []}, r"texts away: 0, too few"),
        ({"site": "pattern"}, r"site 'pattern' has no direction; use one of resid_pre"),
        ({"site": "nowhere"}, r"site 'nowhere' has no direction"),
        ({"layers": [7]}, r"layer 7 does not exist"),
        ({"toward": [*TOWARD, ""]}, r"text 7 has no tokens"),
    ],
)
def test_directions_that_there_are_not_are_refused(options, message):
    model, _ = tiny("llama")
    with pytest.raises(BadInput, match=message):
        direction(model, **{"toward": TOWARD, "away": AWAY, **options})


def test_what_cannot_be_steered_or_read_is_refused():
    model, _ = tiny("llama")
    found = direction(model, TOWARD, AWAY, layers=[1])
    with pytest.raises(BadInput, match=r"there is no direction of layer 0 for site resid_post"):
        steering(found, 0)
    with pytest.raises(BadInput, match=r"there is no direction of head 1 for site resid_post"):
        steering(found, 1, head=1)
    with pytest.raises(BadInput, match=r"'Mary' has fewer than two tokens"):
        in_halves(model, ["Mary"])
    taken = iv.Intervention(iv.Edit("z", iv.Interchange(), layer=0))
    with pytest.raises(BadInput, match=r"this intervention takes 1 source prompts"):
        compare(model, taken, in_halves(model, NEUTRAL))
