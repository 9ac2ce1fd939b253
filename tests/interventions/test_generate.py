"""Writing with edits in place against the same text read in one piece, and against transformers'
own generation.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
import xarray as xr
from random_models import VOCABULARY, placed, tiny

from nnheads import interventions as iv
from nnheads.errors import BadInput, RunError
from nnheads.interventions.apply import run
from nnheads.interventions.generate import generate
from nnheads.interventions.texts import read_texts
from nnheads.models.families import FAMILIES

NEW = 6


@pytest.fixture
def prompts(padded):
    return labelled(*padded[:2])


def labelled(ids, mask) -> xr.Dataset:
    place = ("batch", "position")
    return xr.Dataset(
        {"token": (place, np.asarray(ids)), "mask": (place, np.asarray(mask))}, {"batch": [0, 1]}
    )


def read_back(prompts: xr.Dataset, ids: np.ndarray) -> xr.Dataset:
    """The prompts and what was written, but for the last token, which nothing reads."""
    token = np.concatenate([prompts["token"].values, np.where(ids < 0, 0, ids)[:, :-1]], 1)
    mask = np.concatenate([prompts["mask"].values, np.ones_like(ids)[:, :-1]], 1)
    coords = {"prompt_length": ("batch", prompts["mask"].values.sum(1))}
    roles = {name: prompts[name] for name in prompts.coords if name.startswith("role_")}
    return labelled(token, mask).assign_coords(coords | roles)


def forced(intervention: iv.Intervention, prompts: xr.Dataset, count: int) -> iv.Intervention:
    """The same edits by their positions in the whole text."""

    def moved(edit: iv.Edit) -> list[iv.Edit]:
        kind, values = edit.at.kind, edit.at.values
        if kind == "decode":
            return [dataclasses.replace(edit, at=iv.ANSWER)]
        if kind == "steps":
            return [dataclasses.replace(edit, at=iv.index(*(step - count + 1 for step in values)))]
        if kind == "index":
            return [
                dataclasses.replace(
                    edit, at=iv.index(*(v if v >= 0 else v - count + 1 for v in values))
                )
            ]
        return [edit]

    return iv.Intervention(
        *[one for edit in intervention.edits for one in moved(edit)],
        tensors=intervention.tensors,
        mode=intervention.mode,
    )


def assert_equal_to_reading(model, intervention, prompts, sources=(), new=NEW, **options):
    """Step by step the logits of the text read in one piece; the written tokens are the likeliest
    ones.
    """
    written = generate(
        model, intervention, prompts, sources, new_tokens=new, keep_logits=True, **options
    )
    assert written.logits.shape[1] == written.ids.shape[1] == new
    text = read_back(prompts, written.ids)
    logits = run(
        model, forced(intervention, prompts, new), text, sources, original=False, keep=new
    ).edited
    alive = torch.from_numpy(written.ids >= 0)
    alive = alive | (
        alive.cumsum(1) == torch.arange(1, new + 1)[None] - 1
    )  # the end itself was predicted too
    torch.testing.assert_close(written.logits[alive], logits[alive].float(), atol=3e-4, rtol=1e-4)
    assert (written.logits.argmax(-1).numpy() == written.ids)[written.ids >= 0].all()
    assert (
        float(
            (written.logits[:, : written.original_logits.shape[1]] - written.original_logits)
            .abs()
            .max()
        )
        > 1e-3
    )
    return written


def everywhere(neurons: bool) -> list[iv.Edit]:
    """Every site, at positions of every kind."""
    return [
        iv.Edit("resid_pre", iv.Add(0.5), layer=0, neurons=(3, 4), at=iv.PROMPT),
        iv.Edit("attn_in", iv.Scale(1.5), layer=0, neurons=(1,), at=iv.DECODE),
        iv.Edit("q", iv.Scale(1.3), layer=0, units=(1,), at=iv.DECODE),
        iv.Edit("k", iv.Scale(0.7), layer=0, at=iv.steps(0, 2)),
        iv.Edit("v", iv.Scale(1.4), layer=0, at=iv.ALL),
        iv.Edit("z", iv.Add("z"), layer=0, units=(2,), at=iv.DECODE),
        iv.Edit("attn_out", iv.Scale(1.2), layer=1, at=iv.ANSWERING),
        iv.Edit("attn_out", iv.Scale(1.2), layer=1, at=iv.steps(1)),
        iv.Edit("mlp_in", iv.Add(0.3), layer=1, neurons=(5,), at=iv.ALL),
        *([iv.Edit("mlp_hidden", iv.Scale(0.5), layer=1, at=iv.DECODE)] if neurons else []),
        iv.Edit("mlp_out", iv.Scale(0.9), layer=1, at=iv.index(-1, 2)),
        *[
            iv.Edit("resid_post", iv.Add("resid", scale=0.5), layer=layer, at=iv.DECODE)
            for layer in range(3)
        ],
    ]


def test_no_edit_is_what_transformers_writes(model_type, padded, prompts):
    model, module = tiny(model_type)
    ids, mask, _ = padded
    written = generate(model, iv.Intervention(), prompts, new_tokens=NEW)
    out = module.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)[
        :, 9:
    ].numpy()
    assert (
        written.ids.tolist()
        == written.original_ids.tolist()
        == np.where((out == 2).cumsum(1) > 0, -1, out).tolist()
    )


def test_every_site_equals_reading_what_was_written(model_type, prompts):
    model, module = tiny(model_type)
    generator = torch.Generator().manual_seed(2)
    z = model.layers[0].attention.projection._module
    width = (getattr(z, "in_features", None) or z.nx) // 4
    sizes = {"z": width, "resid": module.config.hidden_size}
    tensors = {name: torch.randn(size, generator=generator) for name, size in sizes.items()}
    edits = everywhere(FAMILIES[model_type].neurons is not None)
    assert_equal_to_reading(model, iv.Intervention(*edits, tensors=tensors), prompts)


def test_patterns_equal_reading_what_was_written(model_type, prompts):
    model, _ = tiny(model_type)
    edits = (
        iv.Edit("pattern", iv.Scale(0.5), layer=0, units=(1, 2), at=iv.DECODE),
        iv.Edit("pattern", iv.Zero(), layer=1, units=(3,), at=iv.steps(0, 3)),
        iv.Edit("pattern", iv.Scale(1.5), layer=2, at=iv.PROMPT),
    )
    assert_equal_to_reading(model, iv.Intervention(*edits), prompts)


def test_a_source_prompt_goes_in_layer_by_layer_at_each_step(model_type, prompts):
    """pyvene's README: what a source prompt holds at one position, in every layer, while the model
    writes.
    """
    model, _ = tiny(model_type)
    source = prompts.assign(token=(prompts["token"] + 50) % (VOCABULARY - 4) + 4)
    edits = [
        iv.Edit("resid_post", iv.Interchange(source_at=iv.index(1)), layer=layer, at=iv.DECODE)
        for layer in (0, 1)
    ]
    edits = [dataclasses.replace(edit, neurons=tuple(range(20))) for edit in edits]
    written = generate(
        model, iv.Intervention(*edits), prompts, [source], new_tokens=NEW, keep_logits=True
    )
    reads = [
        dataclasses.replace(edit, do=iv.Collect(str(edit.layer)), at=iv.index(1)) for edit in edits
    ]
    taken = run(model, iv.Intervention(*reads), source).collected
    text = read_back(prompts, written.ids)
    held = {layer: features.expand(-1, NEW - 1, -1) for layer, features in taken.items()}
    again = [dataclasses.replace(edit, do=iv.Set(str(edit.layer)), at=iv.ANSWER) for edit in edits]
    logits = run(
        model, iv.Intervention(*again, tensors=held), text, original=False, keep=NEW
    ).edited
    torch.testing.assert_close(written.logits, logits.float(), atol=3e-4, rtol=1e-4)
    assert float((written.logits[:, 1:] - written.original_logits[:, 1:]).abs().max()) > 1e-2


def test_what_a_source_holds_is_added_at_each_step(prompts):
    model, _ = tiny("llama")
    source = prompts.assign(token=(prompts["token"] + 50) % (VOCABULARY - 4) + 4)
    edits = [
        iv.Edit(
            "mlp_out", iv.AddSource(source_at=iv.index(0), scale=2.0), layer=layer, at=iv.DECODE
        )
        for layer in range(3)
    ]
    written = generate(
        model, iv.Intervention(*edits), prompts, [source], new_tokens=4, keep_logits=True
    )
    reads = [
        iv.Edit("mlp_out", iv.Collect(str(layer)), layer=layer, at=iv.index(0))
        for layer in range(3)
    ]
    held = run(model, iv.Intervention(*reads), source).collected
    again = [
        iv.Edit("mlp_out", iv.Add(str(layer), scale=2.0), layer=layer, at=iv.ANSWER)
        for layer in range(3)
    ]
    text = read_back(prompts, written.ids)
    logits = run(model, iv.Intervention(*again, tensors=held), text, original=False, keep=4).edited
    torch.testing.assert_close(written.logits, logits.float(), atol=3e-4, rtol=1e-4)
    assert float((written.logits[:, 1:] - written.original_logits[:, 1:]).abs().max()) > 1e-2


def test_a_source_may_give_every_step_its_own_place(prompts):
    model, _ = tiny("llama")
    source = prompts.assign(token=(prompts["token"] + 50) % (VOCABULARY - 4) + 4)
    edit = iv.Edit("z", iv.Interchange(source_at=iv.span(0, 3)), layer=1, at=iv.steps(0, 1, 3))
    written = generate(
        model, iv.Intervention(edit), prompts, [source], new_tokens=5, keep_logits=True
    )
    text = read_back(prompts, written.ids)
    again = iv.Edit("z", iv.Interchange(source_at=iv.span(0, 3)), layer=1, at=iv.index(-4, -3, -1))
    logits = run(model, iv.Intervention(again), text, [source], original=False, keep=5).edited
    torch.testing.assert_close(written.logits, logits.float(), atol=3e-4, rtol=1e-4)


def test_serial_sources_and_prompt_positions_together(prompts):
    model, _ = tiny("qwen3")
    sources = [
        prompts.assign(token=(prompts["token"] + n) % (VOCABULARY - 4) + 4) for n in (30, 80)
    ]
    edits = iv.Intervention(
        iv.Edit("resid_pre", iv.Interchange(source=0), layer=1, at=iv.index(2)),
        iv.Edit("resid_post", iv.Interchange(source=1), layer=1, at=iv.index(4)),
        mode="serial",
    )
    assert_equal_to_reading(model, edits, prompts, sources)


def test_edits_of_the_prompt_leave_the_steps_alone(prompts):
    """The applier is asked for nothing at a step: it collects the prompt's positions alone."""
    model, _ = tiny("gpt2")
    seen = prompts.assign_coords(role_END=("batch", [8, 8]))
    for at, places in (
        (iv.PROMPT, 9),
        (iv.index(0, -1), 2),
        (iv.span(1, 4), 3),
        (iv.role("END"), 1),
    ):
        edits = iv.Intervention(iv.Edit("resid_post", iv.Collect(), layer=1, at=at))
        assert generate(model, edits, seen, new_tokens=4).collected["collected"].shape == (
            2,
            places,
            48,
        )
    edits = iv.Intervention(iv.Edit("resid_post", iv.Collect(), layer=1, at=iv.DECODE))
    assert generate(model, edits, seen, new_tokens=4).collected["collected"].shape == (2, 3, 48)
    assert generate(model, edits, seen, new_tokens=1).collected == {}


def test_the_first_token_is_written_before_any_step(prompts):
    model, _ = tiny("llama")
    changed = iv.Intervention(
        *[iv.Edit("resid_post", iv.Scale(-1.0), layer=layer, at=iv.DECODE) for layer in range(3)]
    )
    written = generate(model, changed, prompts, new_tokens=4, keep_logits=True)
    assert torch.equal(written.logits[:, 0], written.original_logits[:, 0])
    assert not torch.allclose(written.logits[:, 1], written.original_logits[:, 1])
    late = generate(
        model,
        iv.Intervention(iv.Edit("z", iv.Zero(), layer=0, at=iv.steps(2))),
        prompts,
        new_tokens=4,
        keep_logits=True,
    )
    assert torch.equal(late.logits[:, :3], late.original_logits[:, :3])
    assert not torch.allclose(late.logits[:, 3], late.original_logits[:, 3])


def test_an_answer_that_is_given_counts_as_written(prompts):
    model, _ = tiny("llama")
    given = prompts.assign_coords(prompt_length=("batch", [7, 3]))
    collected = generate(
        model,
        iv.Intervention(iv.Edit("z", iv.Collect(), layer=0, at=iv.ANSWER)),
        given,
        new_tokens=3,
    ).collected
    assert collected["collected"].shape == (2, 4, 64)  # two tokens of the prompt, two steps


def test_what_is_collected_is_what_reading_collects(prompts):
    model, _ = tiny("gemma2")
    written = generate(
        model,
        iv.Intervention(iv.Edit("z", iv.Collect(), layer=2, at=iv.ALL)),
        prompts.isel(batch=[0]),
        new_tokens=4,
    )
    text = read_back(prompts, generate(model, iv.Intervention(), prompts, new_tokens=4).ids).isel(
        batch=[0]
    )
    found = run(
        model, iv.Intervention(iv.Edit("z", iv.Collect(), layer=2, at=iv.ALL)), text
    ).collected["collected"]
    torch.testing.assert_close(written.collected["collected"], found, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 1.7, "top_k": 40},
        {"top_p": 0.8, "temperature": 3.0},
        {"typical_p": 0.9},
        {},
        {"min_p": 0.01, "repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 1, "do_sample": False},
    ],
)
def test_drawn_tokens_are_those_of_transformers(options, padded, prompts):
    model, module = tiny("llama")
    ids, mask, _ = padded
    edits = iv.Intervention(iv.Edit("resid_post", iv.Scale(1.0), layer=0))
    written = generate(model, edits, prompts, new_tokens=8, sample={**options, "seed": 7})
    torch.manual_seed(7)
    plain = {"do_sample": True, "top_k": 0, **options}
    out = module.generate(input_ids=ids, attention_mask=mask, max_new_tokens=8, **plain)[
        :, 9:
    ].numpy()
    expected = np.where((out == 2).cumsum(1) > 0, -1, out)
    assert written.ids.tolist() == written.original_ids.tolist() == expected.tolist()
    if options.get("do_sample", True):
        other = generate(
            model, edits, prompts, new_tokens=8, sample={**options, "seed": 8}, original=False
        )
        assert other.ids.tolist() != expected.tolist() and other.original_ids is None


def test_each_row_ends_by_itself(prompts, monkeypatch):
    """The token that one row writes third is made the end of texts: it stops, and the other row
    goes on unmoved.
    """
    model, _ = tiny("llama")
    free = generate(model, iv.Intervention(), prompts, new_tokens=8, sample={"seed": 3})
    end = int(free.ids[1, 2])
    assert end not in free.ids[0] and end not in free.ids[1, :2]
    monkeypatch.setattr(model.config, "eos_token_id", end)
    edits = iv.Intervention(iv.Edit("z", iv.Collect(), layer=0, at=iv.DECODE))
    written = generate(model, edits, prompts, new_tokens=8, sample={"seed": 3})
    assert written.ids[0].tolist() == free.ids[0].tolist()
    assert written.ids[1].tolist() == [*free.ids[1, :2], *[-1] * 6]
    assert written.texts[1] == model.tokenizer.decode(free.ids[1, :2])
    behind = written.collected["collected"].isnan().all(-1)
    assert behind[1].tolist() == [False, False, *[True] * 5] and not behind[0].any()


def test_texts_end_behind_a_given_word(prompts):
    model, _ = tiny("llama")
    free = generate(model, iv.Intervention(), prompts, new_tokens=8, sample={"seed": 3})
    word = model.tokenizer.decode([int(free.ids[0, 3])])
    assert word not in model.tokenizer.decode(free.ids[0, :3].tolist())
    stopped = generate(
        model, iv.Intervention(), prompts, new_tokens=8, sample={"seed": 3}, stop_at=word
    )
    assert stopped.ids[0, :4].tolist() == free.ids[0, :4].tolist() and stopped.texts[0].endswith(
        word
    )
    assert (stopped.ids[0, 4:] == -1).all()


@pytest.mark.parametrize("at", [iv.DECODE, iv.ALL, iv.steps(0, 2)])
def test_noise_is_that_of_the_text_read_in_one_piece(at, prompts):
    edit = iv.Edit("resid_pre", iv.Noise(1.0, seed=4), layer=1, at=at)
    assert_equal_to_reading(tiny("llama")[0], iv.Intervention(edit), prompts)


def test_noise_differs_from_step_to_step_and_not_between_calls(prompts):
    model, _ = tiny("llama")
    edits = iv.Intervention(
        iv.Edit("resid_pre", iv.Zero(), layer=1, at=iv.DECODE),
        iv.Edit("resid_pre", iv.Noise(1.0, seed=4), layer=1, at=iv.DECODE),
        iv.Edit("resid_pre", iv.Collect(), layer=1, at=iv.DECODE),
    )
    first, again = (
        generate(model, edits, prompts, new_tokens=4).collected["collected"] for _ in range(2)
    )
    alone = generate(model, edits, prompts.isel(batch=[0]), new_tokens=4).collected["collected"]
    assert torch.equal(first, again) and torch.equal(first[:1], alone)
    assert (first[:, 0] - first[:, 1]).abs().max() > 0.1 and abs(float(first.std()) - 1) < 0.1


def test_everything_is_one_job(prompts):
    """A rehearsal of a remote run: the block is serialized and gives the same."""
    model, _ = tiny("qwen2")
    source = prompts.assign(token=(prompts["token"] + 50) % (VOCABULARY - 4) + 4)
    edits = iv.Intervention(
        iv.Edit("resid_post", iv.Add("v"), layer=1, at=iv.DECODE),
        iv.Edit("z", iv.Collect(), layer=2, at=iv.steps(1)),
        iv.Edit("z", iv.Interchange(source_at=iv.index(0)), layer=2, at=iv.DECODE),
        tensors={"v": torch.ones(48)},
    )
    options = {
        "new_tokens": 5,
        "sample": {"top_k": 20, "seed": 1},
        "stop_at": "no such text",
        "keep_logits": True,
    }
    here = generate(model, edits, prompts, [source], **options)
    there = placed("local", generate)(model, edits, prompts, [source], **options)
    assert (
        here.ids.tolist() == there.ids.tolist()
        and here.original_ids.tolist() == there.original_ids.tolist()
    )
    assert torch.equal(here.logits, there.logits)
    assert torch.equal(here.collected["collected"], there.collected["collected"])


def test_texts_become_prompts_padded_on_the_left():
    tokenizer = tiny("llama")[0].tokenizer
    found = read_texts(tokenizer, ["Mary and John", "Mary"])
    assert found["mask"].values.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert found["token"].values[1, 2] == found["token"].values[0, 0]
    with pytest.raises(BadInput, match=r"text 2 has no tokens"):
        read_texts(tokenizer, ["Mary", ""])
    with pytest.raises(BadInput, match=r"no texts"):
        read_texts(tokenizer, [])


STEP = iv.Edit("z", iv.Zero(), layer=0, at=iv.steps(5))
TAKEN = iv.Edit("z", iv.Interchange(), layer=0, at=iv.DECODE)


@pytest.mark.parametrize(
    ("edits", "options", "message"),
    [
        ((), {"new_tokens": 0}, r"0 new tokens are not possible"),
        (
            (STEP,),
            {"new_tokens": 6},
            r"step 5 is read by no forward when 6 tokens are written.*number 4",
        ),
        ((), {"new_tokens": 200}, r"the text has 208 tokens; this model reads at most 128"),
        (
            (),
            {"sample": {"beams": 2}},
            r"sampling option 'beams' is not known; use repetition_penalty",
        ),
        ((), {"sample": {"temperature": -1.0}}, r"temperature -1.0 is not possible"),
        ((), {"sample": {"seed": "a"}}, r"seed 'a' is no whole number"),
        ((TAKEN,), {}, r"takes 1 sources, got 0"),
        (
            (TAKEN,),
            {"sources": 1},
            r"z takes 0 positions of its source for 19 steps; name one .*source_at",
        ),
        (
            (iv.Edit("z", iv.Interchange(source_at=iv.span(0, 2)), layer=0, at=iv.DECODE),),
            {"sources": 1},
            r"takes 2 positions of its source for 19 steps",
        ),
        (
            (iv.Edit("z", iv.Interchange(), layer=0),),
            {"sources": 1},
            r"takes 5, 9 positions of its source for 19 steps",
        ),
        (
            (iv.Edit("pattern", iv.Interchange(source_at=iv.index(0)), layer=0, at=iv.DECODE),),
            {"sources": 1},
            r"an attention pattern has a key for every token before it",
        ),
        ((iv.Edit("z", iv.Zero(), layer=9),), {}, r"layer 9 does not exist"),
    ],
)
def test_what_cannot_be_written_is_refused(edits, options, message, prompts):
    model, _ = tiny("llama")
    sources = (
        [prompts] * options.pop("sources", 0) if "sources" in (options := dict(options)) else []
    )
    with pytest.raises(BadInput, match=message):
        generate(model, iv.Intervention(*edits), prompts, sources, **options)


def test_sources_that_do_not_go_row_by_row_are_refused(prompts):
    model, _ = tiny("llama")
    edit = iv.Edit("z", iv.Interchange(source_at=iv.index(0)), layer=0, at=iv.DECODE)
    with pytest.raises(BadInput, match=r"a source has 1 prompts and the base 2"):
        generate(model, iv.Intervention(edit), prompts, [prompts.isel(batch=[0])])
    serial = iv.Intervention(
        edit,
        dataclasses.replace(edit, do=iv.Interchange(source=1, source_at=iv.index(0))),
        mode="serial",
    )
    with pytest.raises(
        BadInput,
        match=r"source 0 is put into source 1, where nothing is written",
    ):
        generate(model, serial, prompts, [prompts, prompts])


@pytest.mark.parametrize("sample", [None, {"seed": 1}])
def test_predictions_that_are_no_numbers_are_refused(sample, prompts):
    model, _ = tiny("llama")
    edits = iv.Intervention(
        iv.Edit("resid_post", iv.Add("v"), layer=1, at=iv.DECODE),
        tensors={"v": torch.full((48,), torch.nan)},
    )
    with pytest.raises(RunError, match=r"with these edits the model's predictions are not finite"):
        generate(model, edits, prompts, new_tokens=3, sample=sample)


def test_prompts_padded_on_the_right_are_refused(prompts):
    model, _ = tiny("llama")
    mirrored = prompts.assign(mask=(("batch", "position"), prompts["mask"].values[:, ::-1].copy()))
    with pytest.raises(BadInput, match=r"padded on the right; pad them on the left"):
        generate(model, iv.Intervention(), mirrored)
