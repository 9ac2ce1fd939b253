"""as_module against the traced applier on every family, and on networks that are no language
models.
"""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
from random_models import build, tiny
from swaps import pairs, runs

from nnheads import interventions as iv
from nnheads.errors import BadInput
from nnheads.interventions.apply import run
from nnheads.interventions.module import as_module
from nnheads.models.families import FAMILIES

HOOKED = ("resid_pre", "attn_in", "z", "attn_out", "mlp_in", "mlp_hidden", "mlp_out", "resid_post")


def edits_of(site: str) -> tuple[iv.Edit, ...]:
    unit = {"units": (2,)} if site == "z" else {}
    return (
        iv.Edit(
            site, iv.Interchange(source_at=iv.index(1, -1)), layer=0, at=iv.index(-2, -3), **unit
        ),
        iv.Edit(site, iv.Noise(level=0.5), layer=1, at=iv.span(1, 4), **unit),
        iv.Edit(site, iv.Scale(-1.5), layer=1, neurons=(5, 3), at=iv.index(-1), **unit),
        iv.Edit(site, iv.Collect(f"of {site}"), layer=2, at=iv.index(0, -1), **unit),
    )


def given(model_type: str, prompts) -> tuple[dict, dict]:
    """Inputs of base (token) and source (corrupted)."""
    source, base = runs(model_type, prompts)
    return base, source


def test_hooks_equal_traces_at_every_site_of_every_family(model_type, padded):
    model, _ = tiny(model_type)
    prompts = pairs(padded)
    sites = [site for site in HOOKED if site != "mlp_hidden" or FAMILIES[model_type].neurons]
    base, source = given(model_type, prompts)
    real = prompts["mask"].values.astype(bool)
    for site in sites:
        edits = iv.Intervention(*edits_of(site))
        traced = run(model, edits, prompts, [prompts.assign(token=prompts["corrupted"])])
        found: dict = {}
        with torch.no_grad():
            logits = as_module(model, edits)(
                **base, use_cache=False, sources=[source], collected=found
            ).logits
        scale = float(traced.edited.abs().max())  # about 5
        torch.testing.assert_close(logits[real], traced.edited[real], atol=1e-6 * scale, rtol=0)
        torch.testing.assert_close(found, traced.collected, atol=1e-6, rtol=2e-6)
        assert float((traced.edited - traced.original)[real].abs().max()) > 1e-3


class Convolutions(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Conv2d(1, 6, 3)
        self.second = torch.nn.Conv2d(6, 4, 3)

    def forward(self, picture):
        return self.second(torch.relu(self.first(picture))).mean((2, 3))


def test_a_convolutional_network_has_pixels_as_positions_and_channels_as_features():
    torch.manual_seed(0)
    network = Convolutions()
    picture, other = torch.randn(2, 1, 7, 8), torch.randn(2, 1, 7, 8)
    edit = iv.Edit(
        "output", iv.Interchange(), path="first", neurons=(1, 4), at=iv.index(0, 13)
    )  # 13 is row 2, column 1 of 6
    with torch.no_grad():
        hidden, given = network.first(picture), network.first(other)
        for channel in (1, 4):
            for row, column in ((0, 0), (2, 1)):
                hidden[:, channel, row, column] = given[:, channel, row, column]
        expected = network.second(torch.relu(hidden)).mean((2, 3))
        changed = as_module(network, iv.Intervention(edit))(picture, sources=[other])
    torch.testing.assert_close(changed, expected)
    assert not torch.allclose(changed, network(picture))


def test_a_multilayer_perceptron_has_one_position():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    rows = torch.randn(4, 5)
    changed = as_module(
        network, iv.Intervention(iv.Edit("input", iv.Zero(), path="2", neurons=(0, 7)))
    )(rows)
    hidden = torch.relu(network[0](rows)).clone()
    hidden[:, [0, 7]] = 0
    torch.testing.assert_close(changed, network[2](hidden))
    assert changed.shape == (4, 3)


class Recurrent(torch.nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.cells = kind(4, 6, batch_first=True)
        self.readout = torch.nn.Linear(6, 2)

    def forward(self, steps):
        return self.readout(self.cells(steps)[0])


@pytest.mark.parametrize("kind", [torch.nn.RNN, torch.nn.GRU, torch.nn.LSTM])
def test_a_recurrent_network_returns_tuples(kind):
    torch.manual_seed(0)
    network, steps = Recurrent(kind), torch.randn(3, 5, 4)
    add = iv.Edit("output", iv.Add("direction", scale=2.0), path="cells", at=iv.index(1, -1))
    direction = torch.randn(6)
    changed = as_module(network, iv.Intervention(add, tensors={"direction": direction}))(steps)
    hidden = network.cells(steps)[0].clone()
    hidden[:, [1, 4]] += 2 * direction
    torch.testing.assert_close(changed, network.readout(hidden))
    assert torch.equal(changed[:, 0], network(steps)[:, 0])


def test_mamba_by_path():
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "mamba", hidden_size=16, num_hidden_layers=2, vocab_size=40, state_size=4
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that its fast kernels are not installed
        mamba = AutoModelForCausalLM.from_config(config).eval()
        ids = torch.randint(0, 40, (2, 6))
        edit = iv.Edit("output", iv.Interchange(), path="backbone.layers.0", at=iv.index(2))
        changed = as_module(mamba, iv.Intervention(edit))(
            input_ids=ids, sources=[{"input_ids": ids.flip(1)}]
        ).logits
        seen = []

        def put(_, inputs, output):
            output = output.clone()
            if seen:
                output[:, 2] = seen[0][:, 2]
            seen.append(output)
            return output

        with mamba.backbone.layers[0].register_forward_hook(put):
            mamba(ids.flip(1))
            expected = mamba(ids).logits
    torch.testing.assert_close(changed, expected)
    assert not torch.allclose(changed, mamba(ids).logits)


def network() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    layers = torch.nn.Sequential(
        torch.nn.Linear(5, 6), torch.nn.Tanh(), torch.nn.Linear(6, 6), torch.nn.Linear(6, 2)
    )
    return layers, torch.randn(3, 5), torch.randn(3, 5)


def test_linked_rotations_are_one_parameter_and_train():
    layers, base, source = network()
    start = torch.linalg.qr(torch.randn(6, 6))[0][:, :2]
    edits = [iv.Edit("output", iv.LowRank(rotation="shared"), path=path) for path in ("0", "2")]
    module = as_module(
        layers.requires_grad_(False), iv.Intervention(*edits, tensors={"shared": start})
    )
    learned = [name for name, parameter in module.named_parameters() if parameter.requires_grad]
    assert learned == ["tensor_0"]
    bigger = torch.nn.Sequential()
    bigger.inner = module
    optimizer = torch.optim.SGD([p for p in bigger.parameters() if p.requires_grad], lr=0.1)
    loss = module(base, sources=[source]).pow(2).sum()
    loss.backward()
    optimizer.step()
    assert not torch.allclose(module.intervention.tensors["shared"], start)
    assert float(module(base, sources=[source]).pow(2).sum().detach()) < float(loss.detach())


def test_it_copies_pickles_and_moves_with_what_it_learned(tmp_path):
    layers, base, source = network()
    tensors = {
        "rotation": torch.eye(6),
        "direction": torch.ones(6),
        "own": torch.nn.Parameter(torch.ones(6)),
    }
    edits = (
        iv.Edit("output", iv.Rotate(columns=(0, 1)), path="0"),
        iv.Edit("output", iv.Add("direction"), path="2"),
        iv.Edit("output", iv.Add("own"), path="2"),
    )
    module = as_module(layers, iv.Intervention(*edits, tensors=tensors))
    assert module.tensors["own"] is tensors["own"]
    assert [name for name, _ in module.named_buffers()] == ["tensor_1"]
    expected = module(base, sources=[source])
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert torch.equal(other(base, sources=[source]), expected)
        assert other.tensors["own"] is not tensors["own"]
    double = copy.deepcopy(module).double()
    assert {tensor.dtype for tensor in double.tensors.values()} == {torch.float64}
    torch.testing.assert_close(double(base.double(), sources=[source.double()]).float(), expected)
    assert double.to("meta").tensors["direction"].device.type == "meta"
    other = as_module(layers, module.intervention)
    assert torch.equal(other(base, sources=[source]), expected)
    other.load_state_dict(module.state_dict())


def half(base, source):
    return (base + source) / 2


@pytest.mark.parametrize(
    ("do", "formula"),
    [
        (iv.Interchange(), lambda base, source: source),
        (iv.AddSource(scale=-2.0), lambda base, source: base - 2 * source),
        (iv.Combine(function=half), half),
        (iv.Function(torch.square), lambda base, source: base.square()),
        (iv.Set(0.25), lambda base, source: torch.full_like(base, 0.25)),
        (
            iv.Mask(temperature=2.0),
            lambda base, source: base + torch.sigmoid(torch.ones(6) / 2) * (source - base),
        ),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_operations(do, formula):
    layers, base, source = network()
    module = as_module(
        layers, iv.Intervention(iv.Edit("output", do, path="0"), tensors={"mask": torch.ones(6)})
    )
    changed = module(base, sources=[source] if getattr(do, "source", None) == 0 else [])
    torch.testing.assert_close(changed, layers[1:](formula(layers[0](base), layers[0](source))))


def test_serial_sources_build_on_each_other():
    layers, base, source = network()
    third = torch.randn(3, 5)
    edits = (
        iv.Edit("output", iv.Interchange(source=0), path="0", neurons=(0, 1, 2)),
        iv.Edit("output", iv.Interchange(source=1), path="2", neurons=(0, 1)),
    )
    given = layers[0](source).clone()
    given[:, 3:] = layers[0](third)[:, 3:]
    middle = layers[2](torch.tanh(given))
    expected = layers[:3](base).clone()
    expected[:, :2] = middle[:, :2]
    module = as_module(layers, iv.Intervention(*edits, mode="serial"))
    torch.testing.assert_close(module(base, sources=[source, third]), layers[3](expected))
    parallel = as_module(layers, iv.Intervention(*edits))
    assert not torch.allclose(parallel(base, sources=[source, third]), layers[3](expected))


def test_roles_and_prompt_lengths_of_base_and_source(padded):
    from nnheads.interventions import ANSWER

    module = build("llama")
    base, source = given("llama", pairs(padded))
    found: dict = {}
    edits = (
        iv.Edit("resid_pre", iv.Collect("end"), layer=1, at=iv.role("END")),
        iv.Edit("resid_pre", iv.Collect("answer"), layer=1, at=ANSWER),
        iv.Edit("resid_pre", iv.Interchange(source_at=iv.role("END")), layer=2, at=iv.role("END")),
    )
    ends = {"END": torch.tensor([8, 7])}
    intervened = as_module(module, iv.Intervention(*edits))
    with torch.no_grad():
        sources = [{**source, "roles": {"END": [0, 4]}, "use_cache": False}]
        options = {
            "roles": ends,
            "prompt_length": [7, 3],
            "sources": sources,
            "collected": found,
            "use_cache": False,
        }
        changed = intervened(**base, **options, output_hidden_states=True).hidden_states
        plain = module(**base, output_hidden_states=True).hidden_states
        other = module(**source, output_hidden_states=True).hidden_states
    torch.testing.assert_close(found["end"][:, 0], torch.stack([plain[1][0, 8], plain[1][1, 7]]))
    torch.testing.assert_close(found["answer"], plain[1][:, 7:])
    assert not torch.equal(plain[3], changed[3])
    assert other[2].shape == plain[2].shape


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (
            iv.Edit("q", iv.Zero(), layer=0),
            "q is inside the attention kernel, where hooks do not reach; use interventions.run",
        ),
        (
            iv.Edit("z", iv.Zero(), layer=0, at=iv.DECODE),
            "position 'decode' means tokens that are written",
        ),
        (iv.Edit("z", iv.Zero(), layer=9), "layer 9 does not exist"),
        (
            iv.Edit("output", iv.Zero(), path="mlp.down_proj"),
            "no module 'mlp.down_proj' in this model; did you mean model.",
        ),
    ],
)
def test_what_hooks_do_not_reach_is_refused(edit, says):
    with pytest.raises(BadInput, match=says):
        as_module(build("llama"), iv.Intervention(edit))


def test_what_a_module_does_not_have_is_refused():
    layers, base, source = network()
    with pytest.raises(BadInput, match="site z is one of language models"):
        as_module(layers, iv.Intervention(iv.Edit("z", iv.Zero(), layer=0)))
    module = as_module(layers, iv.Intervention(iv.Edit("output", iv.Interchange(), path="0")))
    with pytest.raises(BadInput, match="this intervention takes 1 sources, got 0"):
        module(base)
    with pytest.raises(BadInput, match="a source has 2 prompts and the base 3"):
        module(base, sources=[source[:2]])
    cells = torch.nn.LSTMCell(4, 4)
    holder = torch.nn.Sequential(cells)
    with pytest.raises(BadInput, match="the input of 0 is 1 dimensions"):
        as_module(holder, iv.Intervention(iv.Edit("input", iv.Zero(), path="0")))(torch.randn(4))


def test_boundless_trains_its_boundary():
    layers, base, source = network()
    tensors = {"rotation": torch.eye(6), "boundary": torch.tensor(0.5)}
    edit = iv.Edit("output", iv.Boundless(temperature=2.0), path="0")
    module = as_module(layers, iv.Intervention(edit, tensors=tensors))
    module(base, sources=[source]).sum().backward()
    assert float(module.tensors["boundary"].grad.abs()) > 0
    assert float(module.tensors["rotation"].grad.abs().sum()) > 0
