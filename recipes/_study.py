"""What every study shares: its options, each spelled once, the model that it loads, and the runs
that it opens.

    @study(limit=100, batch_size=20)
    def main(study: Study, corruption: Annotated[str, typer.Option(help="...")] = "other") -> None:
        pairs = ioi(study.loaded.tokenizer, study.limit, seed=study.seed, corruption=corruption)
        run = study.open(prompts_sha256=prompts_hash(pairs))  # taken up where it stopped
        if not run.complete:
            ...
        report(run)

The decorator puts the shared options behind the study's own. A study that spells a shared option
itself, with a help or a default of its own, has that one.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, get_type_hints

import typer

from nnheads.errors import BadInput

RESULTS = Path("results")
COUNTS = ("limit", "batch_size", "top")  # which have to be at least 1

Model = Annotated[
    str, typer.Argument(help="Hub id, local folder, or `reference` (ships with nnheads).")
]
Limit = Annotated[int, typer.Option("--limit", "-n", help="How many prompts.")]
BatchSize = Annotated[int, typer.Option(help="Prompts per batch; a kill loses at most one batch.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of everything that is drawn.")]
Revision = Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")]
Dtype = Annotated[str, typer.Option(help="auto, float32, bfloat16 or float16.")]
Quantization = Annotated[
    str | None, typer.Option(help="4bit or 8bit: weights in fewer bits (needs bitsandbytes).")
]
DeviceMap = Annotated[str | None, typer.Option(help="As in transformers: auto, cuda:0, ...")]
Remote = Annotated[
    str | None, typer.Option(help="ndif, local (a rehearsal), or the URL of a server.")
]
Submit = Annotated[
    bool, typer.Option("--submit", help="With --remote: send, and do not wait for results.")
]
Output = Annotated[
    Path, typer.Option("--output", "-o", file_okay=False, help="Folder for results.")
]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Start afresh instead of taking up what is there.")
]
Plan = Annotated[bool, typer.Option("--plan", help="Say what it would cost, and run nothing.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar.")]
Traceback = Annotated[bool, typer.Option("--traceback", help="Show where an error came from.")]

# In the order of the help. `limit`, `batch_size` and `plan` are for studies that give a default.
SHARED: dict[str, tuple[Any, Any]] = {
    "model": (Model, "reference"),
    "limit": (Limit, inspect.Parameter.empty),
    "batch_size": (BatchSize, inspect.Parameter.empty),
    "seed": (Seed, 0),
    "revision": (Revision, None),
    "dtype": (Dtype, "auto"),
    "quantization": (Quantization, None),
    "device_map": (DeviceMap, None),
    "remote": (Remote, None),
    "submit": (Submit, False),
    "output": (Output, RESULTS),
    "overwrite": (Overwrite, False),
    "plan": (Plan, inspect.Parameter.empty),
    "quiet": (Quiet, False),
    "traceback": (Traceback, False),
}


class Study:
    """A study as it was asked for.

    arguments: every option by name, shared ones and its own; they are attributes too
        (`study.limit`).
    recipe: the folder below the results; incidental: names of options that change no number of a
        run.
    """

    def __init__(
        self, recipe: str, arguments: dict[str, Any], incidental: tuple[str, ...] = ()
    ) -> None:
        self.recipe, self.arguments, self.incidental = recipe, arguments, incidental
        for name in COUNTS:
            if arguments.get(name) is not None and arguments[name] < 1:
                option = name.replace("_", "-")
                raise BadInput(
                    f"--{option} {arguments[name]} is not possible; it must be at least 1"
                )

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["arguments"][name]
        except KeyError:
            raise AttributeError(f"{self.recipe!r} has no option {name!r}") from None

    @property
    def name(self) -> str:
        """The name of the model as it was typed."""
        return self.arguments["model"]

    @property
    def remote_place(self) -> bool | str:
        """Return `--remote` as nnsight takes it: False, True (NDIF), "local" or a URL."""
        return remote_place(self.arguments.get("remote"))

    @functools.cached_property
    def loaded(self) -> Any:
        """The model, loaded when it is first asked for."""
        return load(self.arguments)

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """Return name, revision and commit of the loaded model, as a run records them."""
        from nnheads.runs.provenance import model_identity

        return model_identity(self.loaded, self.name)

    def facts(self, *, without: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        """Return what identifies a run: the options that change its numbers, the model's weights,
        and `more`.
        """
        left_out = {*self.incidental, *without}
        asked = {name: value for name, value in self.arguments.items() if name not in left_out}
        return {
            **asked,
            "model": self.identity["model"],
            "weights": self.identity["commit"],
            **more,
        }

    def open(self, *, item: str = "", without: tuple[str, ...] = (), **more: Any):
        """Open the run that these options ask for, or take up the one that is there.

        item: a folder below the revision, for studies with several; without, more: as for `facts`.
        """
        from nnheads.runs.folder import Run

        run = Run(
            self.arguments["output"],
            self.recipe,
            self.name,
            self.identity["revision"],
            self.facts(without=without, **more),
            item=item,
            overwrite=self.arguments["overwrite"],
        )
        run.work_with(self.loaded, self.name)
        return run


def study(
    recipe: str | None = None,
    *,
    without: tuple[str, ...] = (),
    incidental: tuple[str, ...] = (),
    **defaults: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function: put the shared options behind its own, and give it a `Study`
    first.

    recipe: the folder below the results; default: the name of the function's module.
    without: shared options that this study does not have. defaults: of those that it has
        (`limit=100`).
    incidental: options that say how something is shown and change no number of a run.
    """

    def decorate(main: Callable[..., None]) -> Callable[..., None]:
        named = recipe or main.__module__.rpartition(".")[2].replace("_", "-")
        parameters = parameters_of(main, without, defaults)

        @functools.wraps(main)
        def command(**arguments: Any) -> None:
            own = {name: arguments[name] for name in list(inspect.signature(main).parameters)[1:]}
            main(Study(named, arguments, incidental), **own)

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {one.name: one.annotation for one in parameters} | {
            "return": None
        }
        del command.__wrapped__  # what typer reads is the signature above
        return command

    return decorate


def parameters_of(
    main: Callable[..., None], without: tuple[str, ...], defaults: dict[str, Any]
) -> list[inspect.Parameter]:
    """Return a study's own parameters and the shared ones behind them, as keywords with defaults."""
    unknown = set(defaults) - set(SHARED)
    assert not unknown, f"no shared options: {unknown}"
    hints = get_type_hints(main, include_extras=True)
    given = list(inspect.signature(main).parameters.values())[1:]  # behind the study itself
    own = [
        one.replace(annotation=hints[one.name], kind=inspect.Parameter.KEYWORD_ONLY)
        for one in given
    ]
    taken = {one.name for one in own} | set(without)
    shared = []
    for name, (annotation, default) in SHARED.items():
        default = defaults.get(name, default)
        if name not in taken and default is not inspect.Parameter.empty:
            shared.append(
                inspect.Parameter(
                    name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
                )
            )
    return own + shared


def remote_place(text: str | None) -> bool | str:
    """Return `--remote` as nnsight takes it: False, True (NDIF), "local" or a URL."""
    if text is None:
        return False
    if text == "ndif":
        return True
    if text == "local" or text.startswith(("http://", "https://")):
        return text
    raise BadInput(f"--remote {text!r} is not possible; use ndif, local or a URL")


def load(arguments: dict[str, Any], **changed: Any) -> Any:
    """Load the model that the options name, and say on stderr what somebody should know of its
    server.

    changed: options that are to be another's, such as `dtype` of the second side of a comparison;
        `attention` is the
    implementation.
    """
    from nnheads.models.load import load as load_model
    from nnheads.remote.server import warnings_for

    quieten()
    asked = {**arguments, **changed}
    remote, waiting = remote_place(asked.get("remote")), not asked.get("submit", False)
    there = remote not in (False, "local")
    if not there and not waiting:
        raise BadInput("--submit is for jobs on a server; give --remote ndif or a URL with it")
    loaded = load_model(
        asked["model"],
        revision=asked.get("revision"),
        dtype=asked.get("dtype", "auto"),
        quantization=asked.get("quantization"),
        device_map=asked.get("device_map"),
        attn_implementation=asked.get("attention"),
        remote=remote,
        waiting=waiting,
    )
    for warning in warnings_for(remote, loaded.repo_id) if there else ():
        sys.stderr.write(f"note: {warning}\n")
    return loaded


def quieten() -> None:
    """Keep libraries from talking over the study. Runs before they are imported."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
