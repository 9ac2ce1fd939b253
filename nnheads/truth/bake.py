"""An edit of head outputs as part of a checkpoint: the bias of each attention output projection
takes it in.

Adding v to the head outputs of a layer at every position is adding W_O v behind the projection, so
a bias of W_O v does it in any program that loads the checkpoint. It acts at every position, those
of the prompt too: an edit of written tokens alone cannot be baked. The edit itself, without W_O, is
    no bias: it has another basis and often another size.
Source: Li et al. 2023, arXiv 2306.03341.
"""

from __future__ import annotations

import contextlib
import copy
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import xarray as xr

from nnheads.errors import BadInput, RunError, first_line
from nnheads.interventions import prepare as plan
from nnheads.interventions.apply import run
from nnheads.interventions.schema import ALL, Add, Intervention, Subtract
from nnheads.models.families import family
from nnheads.models.geometry import geometry, model_spec
from nnheads.models.load import load
from nnheads.models.loading import one_line, whole_checkpoint
from nnheads.runs.store import writing

TOLERANCE = 1e-4  # logits
# families whose projection gets its bias by an option of their configuration, which may give others
# one too
SWITCHES = {
    **dict.fromkeys(
        (
            "llama",
            "qwen3",
            "qwen3_moe",
            "smollm3",
            "gemma",
            "gemma2",
            "gemma3_text",
            "olmo2",
            "cohere",
            "gpt_oss",
            "gpt_neox",
        ),
        "attention_bias",
    ),
    "opt": "enable_bias",
    "falcon": "bias",
    "starcoder2": "use_bias",
}
ALWAYS = (
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "bloom",
    "phi",
)  # families whose projection has a bias anyway
# families whose feed-forward part stands beside attention, so that its bias joins the residual
# stream at the same place
BESIDE = {"gptj": "mlp.fc_out"}
# families whose values can have a bias: attention weights of a query sum to 1, so it comes through
# to z as it is
VALUES = {
    "stablelm": ("use_qkv_bias", "self_attn.v_proj"),
    "qwen2_moe": ("qkv_bias", "self_attn.v_proj"),
}
# families that compute what Llama computes, but have no option for the bias: they are saved as
# Llama
AS_LLAMA = ("mistral", "qwen2")
LLAMA_FIELDS = (
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "hidden_act",
    "max_position_embeddings",
    "initializer_range",
    "rms_norm_eps",
    "use_cache",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "tie_word_embeddings",
    "rope_parameters",
    "attention_dropout",
)


@dataclass(frozen=True)
class Baked:
    """Where a baked checkpoint is, by how much its logits differ at most from those of the live
    edit at every position, how far these lie from the unedited ones, and the family that it was
    saved as."""

    folder: Path
    difference: float
    moved: float
    family: str


CARD = """# {name}, with an edit in its biases

{heads} head outputs of {name} are moved by a constant each; the bias of {place} holds what that adds there.
It acts at every position, those of the prompt too. Checked: logits equal those of the live edit to {difference:.0e}.
Made with nnheads (inference-time intervention: Li et al. 2023, arXiv 2306.03341).
"""


def bake(
    model,
    intervention: Intervention,
    folder: str | Path,
    prompts: xr.Dataset,
    *,
    name: str = "the model",
) -> Baked:
    """Save a model with an edit baked in, once its logits are those of the live edit.

    Args:
        model: loaded here, in float32: the check means nothing in half precision. It is left as it
            is.
        intervention: only adds to, or subtracts from, head outputs at every position.
        folder: does not exist yet, or is empty. It can be loaded with plain transformers.
        prompts: what both are compared on, token and mask (batch, position).
        name: what the model is called in the checkpoint's README.

    Raises:
        BadInput: an edit that no bias can hold, a family without a place for one, a folder in use,
            a model of another dtype or without weights. RunError: logits that differ by more than
                TOLERANCE; nothing is written then.
    """
    folder = Path(folder)
    check(model, intervention, folder)
    config, place = home(model)
    biases = {
        f"{family(model).layers}.{layer}.{place}.bias": (
            value if config.model_type in VALUES else behind
        )
        for layer, (value, behind) in offsets(model, intervention).items()
    }
    with torch.no_grad():
        live = run(model, intervention, prompts)
    with staged(folder) as stage:
        write(model, config, biases, stage)
        with one_line(str(folder)):
            again = load(str(stage), dtype="float32")
        with torch.no_grad():
            found = run(again, Intervention(), prompts, original=False)
        assert live.original is not None and live.edited is not None and found.edited is not None
        real = torch.from_numpy(prompts["mask"].values > 0)
        baked, edited, plain = (
            one.float().cpu()[real] for one in (found.edited, live.edited, live.original)
        )
        difference = float((baked - edited).abs().max())
        if not difference <= TOLERANCE:
            raise RunError(
                f"the baked checkpoint's logits differ by {difference:.1e} from those of the live"
                f" edit, more than {TOLERANCE:.0e}; it was not kept"
            )
        heads = sum(len(edit.units or range(geometry(model).heads)) for edit in intervention.edits)
        card = CARD.format(name=name, heads=heads, place=place, difference=difference)
        (stage / "README.md").write_text(card, encoding="utf-8")
    return Baked(folder, difference, float((edited - plain).abs().max()), config.model_type)


def check(model, intervention: Intervention, folder: Path) -> None:
    """Refuse what cannot be baked before anything is computed."""
    weights = next(model._module.parameters())
    if weights.device.type == "meta":
        raise BadInput("a checkpoint is baked where its weights are; load the model without remote")
    if weights.dtype != torch.float32:
        raise BadInput(
            f"the model is in {str(weights.dtype).removeprefix('torch.')}; load it in float32 to"
            " bake it"
        )
    plan.check_model(model, intervention, model_spec(model))
    if not intervention.edits:
        raise BadInput("this intervention has no edits; there is nothing to bake")
    for edit in intervention.edits:
        if edit.site != "z" or not isinstance(edit.do, (Add, Subtract)):
            raise BadInput(
                f"a bias cannot hold {edit.do.name} at {edit.site}; it holds what is added to head"
                " outputs (z)"
            )
        if edit.at != ALL:
            raise BadInput(
                f"an edit at {edit.at.kind} cannot be baked: a bias acts at every position, those"
                " of the prompt too; use scope all"
            )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(f"{folder} exists already; name a folder that does not")


def home(model) -> tuple:
    """The configuration of the baked checkpoint, and the module of a block whose bias holds the
    edit.
    """
    config, row = copy.deepcopy(model._module.config), family(model)
    model_type = config.model_type
    if model_type in ALWAYS:
        return config, row.projection
    if model_type in SWITCHES:
        setattr(config, SWITCHES[model_type], True)
        return config, row.projection
    if model_type in BESIDE:
        return config, BESIDE[model_type]
    sizes = geometry(model)
    if model_type in VALUES and sizes.kv_heads == sizes.heads:
        setattr(config, VALUES[model_type][0], True)
        return config, VALUES[model_type][1]
    windows = "sliding_attention" in (getattr(config, "layer_types", None) or ()) or (
        model_type == "mistral" and config.sliding_window is not None
    )
    if model_type in AS_LLAMA and not windows:
        from transformers import LlamaConfig

        kept = {name: getattr(config, name) for name in LLAMA_FIELDS if hasattr(config, name)}
        return (
            LlamaConfig(**kept, attention_bias=True, architectures=["LlamaForCausalLM"]),
            row.projection,
        )
    why = "in any configuration"
    if model_type in AS_LLAMA:
        why = "and its sliding window keeps it from being saved as Llama"
    if model_type in VALUES:
        why = "and its heads share values, so that these cannot hold it either"
    raise BadInput(
        f"family {model_type!r} has no bias at its attention output projection {why}; share the"
        " edit itself instead"
    )


def offsets(model, intervention: Intervention) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """What the edits add to each layer's head outputs, v [head * dim], and behind its projection,
    W_O v [d_model], in float64."""
    sizes = geometry(model)
    moved: dict[int, torch.Tensor] = {}
    for edit in intervention.edits:
        assert edit.layer is not None and isinstance(edit.do, (Add, Subtract))
        given = edit.do.value
        value = intervention.tensors[given] if isinstance(given, str) else torch.tensor(given)
        units = list(range(sizes.heads) if edit.units is None else edit.units)
        chosen = list(range(sizes.head_dim) if edit.neurons is None else edit.neurons)
        sign = 1.0 if isinstance(edit.do, Add) else -1.0
        v = moved.setdefault(
            edit.layer, torch.zeros(sizes.heads, sizes.head_dim, dtype=torch.float64)
        )
        block = (sign * edit.do.scale * value.detach().cpu().double()).expand(
            len(units) * len(chosen)
        )
        v[torch.tensor(units)[:, None], torch.tensor(chosen)] += block.reshape(
            len(units), len(chosen)
        )
    return {
        layer: (v.flatten(), through(model.layers[layer].attention.projection._module, v.flatten()))
        for layer, v in moved.items()
    }


def through(projection: torch.nn.Module, v: torch.Tensor) -> torch.Tensor:
    """W_O v without the bias: a Linear holds [out, in], GPT-2's Conv1D [in, out]."""
    weight = projection.get_parameter("weight").detach().cpu().double()
    return v @ weight if hasattr(projection, "nx") else weight @ v


def write(model, config, biases: dict[str, torch.Tensor], folder: Path) -> None:
    """Save the model under a configuration with these biases added to its own.

    Only the biases are new tensors.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        shell = AutoModelForCausalLM.from_config(config)
    state, wanted = dict(model._module.state_dict()), shell.state_dict()
    absent = [name for name in wanted if name not in state]
    odd = [name for name in (*absent, *(set(state) - set(wanted))) if not name.endswith(".bias")]
    odd += [name for name in biases if name not in wanted]
    if odd:
        raise RunError(
            "the baked checkpoint would need weights that the model does not have, or lack some:"
            f" {odd[0]}"
        )
    state |= {name: torch.zeros(wanted[name].shape) for name in absent}
    for name, value in biases.items():
        state[name] = (state[name].detach().cpu().double() + value).float()
    shell.load_state_dict(state, assign=True)
    shell.tie_weights()
    shell.generation_config = model._module.generation_config
    with writing(folder), whole_checkpoint(str(folder)):  # which keeps transformers' bars to itself
        shell.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)


@contextlib.contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A folder under another name, which gets its own once all is well and vanishes otherwise."""
    with writing(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        stage = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        yield stage
        with writing(folder):
            stage.chmod(0o755)
            stage.replace(folder)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def push(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Upload a baked checkpoint to the Hub; the address it has there. The token is
    huggingface_hub's own (`HF_TOKEN`, or `hf auth login`)."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    if not (Path(folder) / "config.json").is_file():
        raise BadInput(f"{folder} holds no checkpoint; expected a folder that was baked")
    try:
        HfApi().create_repo(repository, private=private, exist_ok=True)
        return str(HfApi().upload_folder(repo_id=repository, folder_path=folder))
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise BadInput(f"cannot push to {repository!r}: {first_line(error)}") from None
