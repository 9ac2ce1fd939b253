"""What calibration claims: heads that merely do not vary, look at everything or at the wrong place
do not pass.
"""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import xarray as xr
from random_models import tiny, words_tokenizer
from scipy import stats as scipy_stats

import nnheads
from nnheads.detectors._catalog import head_type
from nnheads.detectors._detect import calibrated, detect_spans
from nnheads.detectors._scores import raw_scores
from nnheads.detectors._stimulus import prepare
from nnheads.errors import BadInput
from nnheads.prompts.iteration import iteration
from nnheads.prompts.repeated import DISTANCES, repeated
from nnheads.spans import measure as attention
from nnheads.stats import MARGIN, adjusted, calibrate, contrast, invariance
from nnheads.trace.spans import blockwise_mass, statistics

UNIFORM, IDEAL, EARLIER, SINK = range(4)
STEPS = 6


def keys_of(prompts: xr.Dataset, case: int) -> list[int]:
    """Position of each input; every number is one token here."""
    steps = [
        prompts.isel(batch=case, span=prompts["kind"].values == f"iteration@{t}")
        for t in range(STEPS)
    ]
    return [int(one["key_start"][0]) for one in steps]


def made_up_attention(prompts: xr.Dataset) -> torch.Tensor:
    """[batch, head, query, key]: four heads whose attention is known."""
    batch, length = prompts["token"].shape
    weights = torch.zeros(batch, 4, length, length)
    weights[..., 0] = 1.0  # wherever nothing else is said, heads rest on the first token
    for case in range(batch):
        keys = keys_of(prompts, case)
        for t, query in enumerate(prompts["ask"].values[case]):
            weights[case, :SINK, query] = 0
            weights[case, UNIFORM, query, keys] = 1 / STEPS
            weights[case, IDEAL, query, keys[t]] = 1.0
            weights[case, EARLIER, query, keys[max(t - 1, 0)]] = 1.0
    return weights


def calibrated_on(prompts: xr.Dataset, weights: torch.Tensor, kind: str, monkeypatch) -> xr.Dataset:
    """Scores of one layer with made-up attention [batch, head, query, key], calibrated."""

    def measured(model, inputs, layers, spans, share, options, ask):
        eager = (None, None, None, None, {}, weights)
        masses = blockwise_mass(eager, spans, options["block_bytes"])
        return statistics(masses, share, options)[None], None

    monkeypatch.setattr(attention, "measure_spans", measured)
    beside = head_type("iteration").beside if kind == "iteration" else ()
    scores = attention.score(tiny("llama")[0], prompts, kind, source="here", beside=beside)
    return calibrated(scores).isel(layer=0)


@pytest.fixture
def heads(monkeypatch):
    """Iteration scores of four made-up heads, calibrated."""
    prompts = iteration(words_tokenizer(), 12, steps=STEPS, fewest=STEPS)
    return calibrated_on(prompts, made_up_attention(prompts), "iteration", monkeypatch)


def test_only_the_head_that_walks_along_the_inputs_is_an_iteration_head(heads):
    assert heads["flag"].values.tolist() == [0, 1, 0, 0]


def test_a_head_that_attends_to_all_inputs_alike_does_not_pass_however_invariant_it_is(heads):
    one = heads.isel(head=UNIFORM)
    assert np.allclose(one["mass"], 1 / STEPS) and np.allclose(one["null"], 1 / STEPS)
    assert np.allclose(one["excess"], 0, atol=1e-6) and float(one["p_value"]) == 1.0
    assert float(one["invariance"]) > 0.999


def test_a_sink_does_not_vary_and_does_not_pass(heads):
    one = heads.isel(head=SINK)
    assert (
        float(one["invariance"]) == 1.0
        and float(one["mass"]) == 0.0
        and float(one["p_value"]) == 1.0
    )


def test_a_head_at_the_wrong_offset_shows_in_the_column_for_it(heads):
    wrong = heads["wrong_offset"]
    # step 0 has one neighbour, the last too, the others two; the head is on one of two at each step
    # but the first
    assert np.allclose(wrong.isel(head=EARLIER), (STEPS - 1) / (2 * STEPS - 2))
    assert np.allclose(wrong.isel(head=IDEAL), 0) and np.allclose(
        wrong.isel(head=UNIFORM), 1 / STEPS
    )
    assert np.allclose(
        heads["mass"].isel(head=EARLIER), 1 / STEPS
    )  # right by accident at the first step
    assert np.allclose(heads["mass"].isel(head=IDEAL), 1) and np.allclose(
        heads["hit"].isel(head=IDEAL), 1
    )


def test_invariance_is_one_minus_the_mean_spread_over_cases():
    values = np.random.default_rng(0).random((7, 2, 3, 5)).astype("float32")
    got = invariance(xr.DataArray(values, dims=("batch", "layer", "head", "step")))
    expected = [
        [1 - np.mean([np.std(values[:, a, b, t]) for t in range(5)]) for b in range(3)]
        for a in range(2)
    ]
    assert np.allclose(got, expected, atol=1e-6) and got.dims == ("layer", "head")


def test_a_head_that_meets_one_step_of_every_case_is_no_iteration_head():
    """Its excess is the same in all cases: only the test over steps sees that it is an accident."""
    generator = np.random.default_rng(0)
    by_step = generator.uniform(0, 0.01, (20, 1, 3, 8)).astype("float32")
    by_step[:, 0, 0, 2] = by_step[:, 0, 1] = 0.9
    dims = ("batch", "layer", "head")
    scores = {
        "by_step": ((*dims, "step"), by_step),
        "mass": (dims, by_step.mean(-1)),
        "null": (dims, 0 * by_step[..., 0]),
    }
    heads = calibrate(xr.Dataset(scores))
    assert heads["flag"].values.tolist() == [[0, 1, 0]] and float(heads["excess"][0, 0]) > 0.1
    assert calibrate(xr.Dataset(scores).drop_vars("by_step"))["flag"].values.tolist() == [[1, 1, 0]]


def test_steps_that_few_cases_have_do_not_raise_the_invariance():
    values = np.random.default_rng(0).random((7, 1, 1, 3)).astype("float32")
    values[4:, ..., 1] = values[1:, ..., 2] = (
        np.nan
    )  # four cases have the second step, one the third
    expected = 1 - np.mean([np.std(values[:, 0, 0, 0]), np.std(values[:4, 0, 0, 1])])
    dims = ("batch", "layer", "head", "step")
    assert np.allclose(invariance(xr.DataArray(values, dims=dims)), expected, atol=1e-6)


def at_distances(prompts: xr.Dataset, ideal: float = 1.0) -> torch.Tensor:
    """[batch, head, query, key]: head d looks d tokens back, or at the first token; the last head
    puts `ideal` on the right input."""
    batch, length = prompts["token"].shape
    query, distance = torch.meshgrid(torch.arange(length), torch.arange(length), indexing="ij")
    weights = torch.zeros(length + 1, length, length)
    weights[distance, query, (query - distance).clamp(min=0)] = 1.0
    weights = weights.repeat(batch, 1, 1, 1)
    own = prompts.isel(span=prompts["kind"].values == "iteration")
    for case, (queries, keys) in enumerate(zip(own["query"].values, own["key_start"].values)):
        weights[case, -1, queries[queries >= 0], keys[queries >= 0]] = ideal
    return weights


@pytest.mark.parametrize(("n", "steps"), [(8, 16), (32, 16), (140, 16), (32, 8), (240, 6), (40, 4)])
def test_a_head_that_looks_a_fixed_distance_back_is_no_iteration_head(n, steps, monkeypatch):
    prompts = iteration(words_tokenizer(), n, steps=steps)
    heads = calibrated_on(prompts, at_distances(prompts), "iteration", monkeypatch)
    assert np.flatnonzero(heads["flag"].values).tolist() == [heads.sizes["head"] - 1]
    assert np.isclose(heads["mass"][-1], 1) and np.isclose(heads["invariance"][-1], 1)
    # one of k numbers of steps right: t = (1/k - margin) / (1/k) < 1, however many prompts
    assert float(heads["p_value"][:-1].min()) > 0.15


@pytest.mark.parametrize("steps", [15, 16, 20])
def test_no_preference_for_distances_reaches_the_margin_with_enough_numbers_of_steps(
    steps, monkeypatch
):
    """Mass is linear in the attention: what holds for each distance holds for every mixture of
    them.
    """
    prompts = iteration(words_tokenizer(), 4 * (steps - 2), steps=steps)
    heads = calibrated_on(prompts, at_distances(prompts, 0.3), "iteration", monkeypatch)
    assert float(heads["excess"][:-1].max()) < MARGIN
    assert heads["flag"][-1] == 1, "a head that is on the right input now and then passes"


def test_where_all_prompts_have_as_many_steps_a_fixed_distance_passes(monkeypatch):
    prompts = iteration(words_tokenizer(), 32, steps=8, fewest=8)
    heads = calibrated_on(prompts, at_distances(prompts), "iteration", monkeypatch)
    assert int(heads["flag"].sum()) == 2


def heads_of_fixed_distances(prompts: xr.Dataset) -> torch.Tensor:
    """[batch, head, query, key]: head d looks d tokens back, or at the first token; then a head on
    the same token of the first copy, and one on the token after it."""
    batch, length = prompts["token"].shape
    weights = torch.zeros(batch, length + 2, length, length)
    for distance in range(length):
        for query in range(length):
            weights[:, distance, query, max(query - distance, 0)] = 1.0
    for head, kind in enumerate(("duplicate_token", "induction"), length):
        own = prompts.isel(span=prompts["kind"].values == kind)
        for case, (queries, keys) in enumerate(zip(own["query"].values, own["key_start"].values)):
            weights[case, head, queries, keys] = 1.0
    return weights


@pytest.mark.parametrize("n", [8, 32, 5 * DISTANCES])
def test_a_head_that_looks_a_fixed_distance_back_is_no_duplicate_or_induction_head(n, monkeypatch):
    prompts = repeated(words_tokenizer(), n, length=22)
    weights = heads_of_fixed_distances(prompts)
    for kind, head in (("duplicate_token", -2), ("induction", -1)):
        heads = calibrated_on(prompts, weights, kind, monkeypatch)
        flagged = np.flatnonzero(heads["flag"].values).tolist()
        assert flagged == [heads.sizes["head"] + head] and np.isclose(heads["mass"][head], 1)


def gated(answered: list[int]) -> xr.Dataset:
    """Scores of a type that counts answered prompts: heads 0 and 1 do something there, head 2
    elsewhere.
    """
    generator, dims = np.random.default_rng(0), ("batch", "layer", "head")
    own = np.array(answered)[:, None, None]
    mass = generator.uniform(0, 0.01, (len(answered), 1, 4))
    mass[..., :2] += 0.8 * own
    mass[..., 2:3] += 0.8 * (1 - own)
    values = {"score": 2 * mass, "mass": mass, "null": 0 * mass}
    scores = xr.Dataset({name: (dims, one.astype("float32")) for name, one in values.items()})
    return scores.assign_coords(answered=("batch", answered)).assign_attrs(
        headline="score", counts="answered"
    )


def test_prompts_that_do_not_count_are_left_out_of_every_number():
    scores = gated([1, 0, 1, 1, 0, 0, 0, 1, 0, 0])
    heads, alone = calibrated(scores), calibrate(scores.isel(batch=[0, 2, 3, 7]))
    xr.testing.assert_identical(heads.drop_attrs(deep=False), alone.drop_attrs(deep=False))
    assert heads.attrs["cases"] == 10 and heads.attrs["cases_counted"] == 4
    assert heads["flag"].values.tolist() == [[1, 1, 0, 0]] and scores.sizes["batch"] == 10


@pytest.mark.parametrize("count", [0, 1])
def test_where_none_or_one_prompt_counts_nothing_is_flagged(count, recwarn):
    heads = calibrated(gated([1] * count + [0] * 6))
    assert (
        heads.attrs["cases_counted"] == count
        and not heads["flag"].any()
        and heads["p_value"].isnull().all()
    )
    assert bool(heads["score"].isnull().all()) == (count == 0) and heads["score_low"].isnull().all()
    assert not [
        str(one.message) for one in recwarn if "nnheads" in one.filename or "numpy" in one.filename
    ]


def two_groups(cases: int = 20) -> tuple[xr.DataArray, xr.DataArray]:
    generator = np.random.default_rng(1)
    groups = generator.permutation([1] * (cases // 2) + [0] * (cases - cases // 2))
    values = generator.normal(size=(cases, 2, 3))
    values[groups == 1, 1, 2] += 4
    scores = xr.DataArray(
        values, dims=("batch", "layer", "head"), name="mass", attrs={"units": "1"}
    )
    return scores, xr.DataArray(groups, dims="batch", name="answered")


def test_two_sorts_of_prompts_are_compared_by_welchs_test():
    scores, groups = two_groups()
    heads = contrast(scores, groups, margin=0.0)
    own, other = scores.values[groups.values == 1], scores.values[groups.values == 0]
    p_value = np.empty((2, 3))
    for layer, head in np.ndindex(2, 3):
        test = scipy_stats.ttest_ind(own[:, layer, head], other[:, layer, head], equal_var=False)
        p_value[layer, head] = test.pvalue
        low, high = test.confidence_interval(0.95)
        one = heads.isel(layer=layer, head=head)
        expected = own[:, layer, head].mean() - other[:, layer, head].mean()
        got = [
            float(one[name])
            for name in ("p_value", "difference", "difference_low", "difference_high")
        ]
        assert np.allclose(got, [test.pvalue, expected, low, high], rtol=1e-5)
    corrected = scipy_stats.false_discovery_control(p_value.ravel()).reshape(2, 3)
    assert np.allclose(heads["q_value"], corrected, rtol=1e-5)
    assert heads["flag"].values[1, 2] == 1 and np.array_equal(heads["flag"], corrected < 0.05)


def test_a_difference_within_the_margin_is_no_discovery_however_sure():
    """Head 0 differs by 0.02, head 1 by 0.3, head 2 by -0.3, each with certainty."""
    groups = np.arange(200) % 2
    noise = np.random.default_rng(0).normal(0, 0.01, (200, 1, 3))
    values = noise + groups[:, None, None] * np.array([0.02, 0.3, -0.3])
    scores = xr.DataArray(values, dims=("batch", "layer", "head"), name="mass")
    answered = xr.DataArray(groups, dims="batch", name="answered")
    assert contrast(scores, answered)["flag"].values.tolist() == [[0, 1, 1]]
    heads = contrast(scores, answered, margin=0.25)
    own, other = values[groups == 1, 0, 1], values[groups == 0, 0, 1]
    expected = scipy_stats.ttest_ind(own - 0.25, other, equal_var=False).pvalue
    assert float(heads["p_value"][0, 1]) == pytest.approx(expected, rel=1e-4)
    assert contrast(scores, answered, margin=0.0)["flag"].values.tolist() == [[1, 1, 1]]


@pytest.mark.parametrize("ones", [0, 1, 19, 20])
def test_groups_too_small_to_compare_give_no_number_and_no_flag(ones):
    scores, _ = two_groups()
    heads = contrast(
        scores, xr.DataArray([1] * ones + [0] * (20 - ones), dims="batch", name="answered")
    )
    assert (
        heads["difference"].isnull().all()
        and heads["p_value"].isnull().all()
        and not heads["flag"].any()
    )


def test_four_cases_of_a_group_flag_no_head_however_far_apart():
    """Welch's test on four against four takes their spread for known."""
    noise = np.random.default_rng(0).normal(0, 0.001, (40, 1, 4))
    for ones, flagged in ((4, 0), (5, 1)):
        groups = np.arange(40) < ones
        scores = xr.DataArray(noise + groups[:, None, None], dims=("batch", "layer", "head"))
        heads = contrast(scores.rename("mass"), xr.DataArray(groups, dims="batch", name="answered"))
        assert (heads["q_value"] < 1e-3).all() and (heads["flag"] == flagged).all()


def test_heads_that_never_vary_get_no_p_value_and_spoil_no_other():
    scores, groups = two_groups()
    scores[:, 0, 0] = 0.5
    heads = contrast(scores, groups)
    assert np.isnan(heads["p_value"].values[0, 0]) and heads["flag"].values[0, 0] == 0
    assert heads["flag"].values[1, 2] == 1
    assert np.array_equal(np.isnan(adjusted(np.array([0.01, np.nan]))), [False, True])


GIVERS = ("Mary", "John", "Anna", "Leo", "Max", "Rita")


@pytest.fixture
def spans_file(tmp_path):
    path = tmp_path / "mine.jsonl"
    spans = [
        {"kind": "giver", "query": "gave"},
        {"kind": "current", "query": "gave", "key": "gave"},
    ]
    with path.open("w") as file:
        for name in GIVERS:
            text = f"When the day came , {name} gave the book to the market"
            own = [{**spans[0], "key": name}, spans[1]]
            file.write(json.dumps({"text": text, "spans": own}) + "\n")
    return path


def test_spans_of_ones_own_are_measured_and_calibrated_like_any_type(spans_file):
    model, module = tiny("llama", "eager")
    found = detect_spans(model, spans_file, batch_size=4)
    assert list(found) == ["giver", "current"] and nnheads.detect_spans.__wrapped__ is detect_spans
    mass = {"giver": [], "current": []}
    for line in spans_file.read_text().splitlines():
        text = json.loads(line)["text"]
        ids = torch.tensor([words_tokenizer()(text)["input_ids"]])
        query = text.split().index("gave")
        patterns = torch.stack(module(ids, output_attentions=True).attentions)[:, 0, :, query]
        mass["giver"].append(patterns[..., query - 1].numpy())
        mass["current"].append(patterns[..., query].numpy())
    for kind, heads in found.items():
        assert np.allclose(heads["mass"], np.mean(mass[kind], 0), atol=1e-5)
        assert heads["mass"].dims == ("layer", "head") and heads.attrs["headline"] == "mass"
        assert {"null", "excess", "p_value", "q_value", "flag", "mass_low", "mass_high"} <= set(
            heads.data_vars
        )
        assert heads.attrs["references"] == "mine.jsonl" and heads.attrs["stimulus"] == "spans"


def test_the_first_lines_alone_can_be_measured(spans_file):
    found = detect_spans(tiny("llama")[0], spans_file, n=1)
    assert found["giver"]["p_value"].isnull().all() and not found["giver"]["flag"].any()


def test_kinds_of_other_names_do_not_meet_old_parts(spans_file, tmp_path):
    model = tiny("llama")[0]
    first = detect_spans(model, spans_file, parts=tmp_path / "parts")
    spans_file.write_text(spans_file.read_text().replace('"giver"', '"agent"'))
    again = detect_spans(model, spans_file, parts=tmp_path / "parts")
    assert list(again) == ["agent", "current"]
    assert np.allclose(again["agent"]["mass"], first["giver"]["mass"])


@pytest.mark.parametrize(
    ("names", "options"),
    [
        (["induction", "retrieval"], {"lengths": [60, 129]}),
        (["induction", "generated_retrieval"], {"lengths": [128]}),
        (["previous_token", "iteration"], {"length": 20, "steps": 70}),
        (["induction"], {"length": 64}),
    ],
)
def test_prompts_beyond_the_context_are_refused_before_any_forward(names, options, monkeypatch):
    monkeypatch.setattr(attention, "measure_spans", lambda *_, **__: pytest.fail("a forward ran"))
    with pytest.raises(BadInput, match=r"the text has 1\d\d tokens"):
        raw_scores(
            tiny("llama")[0], names, n=8, seed=0, batch_size=4, quiet=True, parts=None, **options
        )


def test_what_fits_is_prepared_once_for_all_types_of_a_stimulus():
    model = tiny("llama")[0]
    stimuli = prepare(
        model, ["induction", "retrieval", "current_token"], n=2, seed=0, lengths=[80], length=10
    )
    assert [stimulus.key for stimulus in stimuli] == ["repeated", "needle"]
    assert [one.name for one in stimuli[0].head_types] == ["induction", "current_token"]
    assert [one.name for one in stimuli[0].only(["induction"]).head_types] == ["induction"]
    assert stimuli[1].options == {"lengths": [80]}
