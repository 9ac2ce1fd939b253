"""What a user of pyvene writes, as it is written here: each test is such a script and checks that
it says the truth.
"""

from __future__ import annotations

import warnings

import pytest
import torch
import xarray as xr
from nnsight import NNsight
from random_models import tiny

from nnheads import interventions as iv

model, module = None, None


@pytest.fixture(autouse=True)
def loaded(monkeypatch):
    own, plain = tiny("llama")
    monkeypatch.setitem(globals(), "model", own)
    monkeypatch.setitem(globals(), "module", plain)


def prompts(*rows: list[int]) -> xr.Dataset:
    place = ("batch", "position")
    return xr.Dataset(
        {"token": (place, list(rows)), "mask": (place, [[1] * len(row) for row in rows])}
    )


BASE, SOURCE = prompts([9, 41, 7, 300, 12]), prompts([77, 5, 180, 23, 4])


def test_a_component_by_name_or_by_path():
    """C1-1"""
    named = iv.run(model, iv.Intervention(iv.Edit("mlp_out", iv.Zero(), layer=1)), BASE)
    by_path = iv.run(
        model, iv.Intervention(iv.Edit("output", iv.Zero(), path="model.layers.1.mlp")), BASE
    )
    assert torch.equal(named.edited, by_path.edited)
    assert not torch.equal(named.edited, named.original)


def test_any_module_wrapped():
    """C1-1"""
    network = NNsight(
        torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    )
    rows = torch.randn(3, 4)
    changed = iv.as_module(network, iv.Intervention(iv.Edit("output", iv.Zero(), path="1")))(rows)
    assert torch.equal(changed, network._module[2](torch.zeros(3, 8)))


def test_original_and_edited_outputs_and_collected_activations():
    """C1-2"""
    edits = iv.Intervention(
        iv.Edit("z", iv.Zero(), layer=0, units=(0, 2)),
        iv.Edit("resid_post", iv.Collect("end"), layer=2, at=iv.index(-1)),
    )
    result = iv.run(model, edits, BASE)
    assert result.original.shape == result.edited.shape == (1, 5, 500)
    end = result.collected["end"]
    with torch.no_grad():
        logits = module.lm_head(module.model.norm(end))
    torch.testing.assert_close(logits[:, 0], result.edited[:, -1])


def test_zero_add_and_a_function_at_many_positions():
    """C1-3"""
    direction = torch.randn(48)
    edits = iv.Intervention(
        iv.Edit("mlp_out", iv.Zero(), layer=0, at=iv.index(0, 1, 3)),
        iv.Edit("attn_out", iv.Add("direction", scale=4.0), layer=1, at=iv.span(-2, None)),
        iv.Edit(
            "resid_post",
            iv.Combine(function=lambda base, source: (base + source) / 2),
            layer=1,
            at=iv.index(2),
        ),
        tensors={"direction": direction},
    )
    result = iv.run(model, edits, BASE, [SOURCE])
    assert not torch.equal(result.edited[:, 0], result.original[:, 0])


@pytest.mark.parametrize("mode", ["parallel", "serial"])
def test_two_sources_at_once_or_one_after_the_other(mode):
    """C1-3"""
    edits = (
        iv.Edit("resid_post", iv.Interchange(source=0), layer=0),
        iv.Edit("resid_post", iv.Interchange(source=1), layer=1),
    )
    both = iv.run(
        model, iv.Intervention(*edits, mode=mode), BASE, [SOURCE, prompts([8, 8, 8, 8, 8])]
    )
    alone = iv.run(
        model, iv.Intervention(), prompts([8, 8, 8, 8, 8]) if mode == "parallel" else SOURCE
    ).edited
    torch.testing.assert_close(
        both.edited, alone, atol=1e-5, rtol=1e-5
    )  # the last whole layer decides


def test_saved_and_loaded(tmp_path):
    """C1-4"""
    edits = iv.Intervention(
        iv.Edit("z", iv.Add("truth", scale=15.0), layer=1), tensors={"truth": torch.randn(64)}
    )
    iv.save(edits, tmp_path / "honest")
    assert torch.equal(
        iv.run(model, iv.load(tmp_path / "honest"), BASE).edited, iv.run(model, edits, BASE).edited
    )


def test_a_part_of_a_bigger_module_that_trains():
    """C1-5"""
    rotation = torch.linalg.qr(torch.randn(48, 4))[0]
    swapped = iv.as_module(
        model,
        iv.Intervention(
            iv.Edit("resid_post", iv.LowRank(), layer=1), tensors={"rotation": rotation}
        ),
    )

    class Judge(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.language, self.head = swapped, torch.nn.Linear(500, 1)

        def forward(self, base, source):
            logits = self.language(input_ids=base, sources=[{"input_ids": source}]).logits
            return self.head(logits[:, -1])

    judge = Judge()
    base, source = (torch.from_numpy(data["token"].values).long() for data in (BASE, SOURCE))
    optimizer = torch.optim.Adam([p for p in judge.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = (judge(base, source) - 1).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses == sorted(losses, reverse=True)
    assert not torch.equal(swapped.intervention.tensors["rotation"], rotation)


def test_a_variable_of_a_causal_model_is_aligned_with_directions(tmp_path):
    """C1-7"""
    causal = iv.CausalModel(
        {"left": lambda a, b: a == b, "answer": lambda left, c: 2 * int(left) + c}
    )

    class Network(torch.nn.Module):
        """Units 0 and 1 hold whether a is b, unit 3 holds c."""

        def __init__(self):
            super().__init__()
            self.hidden, self.out = torch.nn.Identity(), torch.nn.Linear(4, 4, bias=False)
            with torch.no_grad():
                self.out.weight.copy_(
                    torch.tensor([[-1.0, -1, 0, -2], [-1, -1, 0, 2], [1, 1, 0, -2], [1, 1, 0, 2]])
                )

        def forward(self, rows):
            a, b, c = rows.unbind(1)
            return self.out(self.hidden(torch.stack([a * b, a * b, a, c], 1)))

    network = Network()
    inputs = [{"a": a, "b": b, "c": c} for a in (-1, 1) for b in (-1, 1) for c in (0, 1)]
    drawn = iv.draw_counterfactuals(causal, inputs, "left", 200)
    rows = torch.tensor([[one["a"], one["b"], 2 * one["c"] - 1] for one in inputs]).float()
    base, source = (rows[[getattr(one, side) for one in drawn]] for side in ("base", "source"))
    pairs = iv.Pairs(base, [source], torch.tensor([one.answer for one in drawn]))
    start = iv.aligned("output", None, features=4, directions=1, path="hidden")
    found, log = iv.train(
        network, start, pairs, steps=300, learning_rate=0.05, checkpoint=tmp_path / "kept"
    )
    direction = found.tensors["rotation"][:, 0]
    assert torch.acos(abs(direction @ torch.tensor([1.0, 1, 0, 0])) / 2**0.5) < 0.1
    assert (
        float(iv.evaluate(network, found, pairs)["score"].mean())
        == float(log["held_out_accuracy"][-1])
        == 1
    )
    assert float(iv.evaluate(network, iv.random_directions(found, 1), pairs)["score"].mean()) < 0.8
    assert iv.load(iv.save(found, tmp_path / "direction")) == found


def test_a_residual_network():
    """C1-9"""
    from transformers import AutoConfig, AutoModelForImageClassification

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = AutoConfig.for_model(
            "resnet", embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], num_labels=3
        )
        network = AutoModelForImageClassification.from_config(config).eval()
        one, two = torch.randn(2, 1, 3, 32, 32)
        swap = iv.Edit("output", iv.Interchange(), path="resnet.encoder.stages.0")
        changed = iv.as_module(network, iv.Intervention(swap))(one, sources=[two]).logits
        torch.testing.assert_close(
            changed, network(two).logits
        )  # all that follows sees the other picture
        part = iv.Edit(
            "output",
            iv.AddSource(scale=0.5),
            path="resnet.encoder.stages.0",
            neurons=(1, 2),
            at=iv.index(0),
        )
        assert not torch.equal(
            iv.as_module(network, iv.Intervention(part))(one, sources=[two]).logits,
            network(one).logits,
        )
