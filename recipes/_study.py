"""Give every study the shared options, its model, and the runs of its results.

    @study(limit=100, batch_size=20)
    def main(study: Study, corruption: Annotated[str, typer.Option(help="...")] = "other") -> None:
        pairs = ioi(study.model.tokenizer, study.limit, seed=study.seed, corruption=corruption)
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
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_type_hints

from nnheads.recipes._checks import check_at_least
from nnheads.recipes._options import NEEDS_DEFAULT, SHARED
from nnheads.recipes._terminal import say

if TYPE_CHECKING:
    import xarray as xr

    from nnheads.runs.folder import Run

COUNTS = ("limit", "batch_size", "top")  # which have to be at least 1
MOST_PROMPTS = 20_000  # that are drawn and held at once; more take other seeds
UNRECORDED = ("plan", "quick")  # of the shared options: they say how others are meant


class Study:
    """The options of one command, its model and its runs.

    arguments: every option by name, shared ones and its own; they are attributes too
        (`study.limit`), except for the model's name, which is `study.name`.
    recipe: the folder below the results.
    incidental: names of options that change no number of a run.

    Raises:
        BadInput: `--limit`, `--batch-size` or `--top` is below 1.
    """

    def __init__(
        self, recipe: str, arguments: dict[str, Any], incidental: tuple[str, ...] = ()
    ) -> None:
        self.recipe, self.arguments, self.incidental = recipe, arguments, incidental
        check_at_least(1, **{name: arguments.get(name) for name in COUNTS})
        check_at_least(1, most=MOST_PROMPTS, limit=arguments.get("limit"))

    def __getattr__(self, name: str) -> Any:
        try:
            return vars(self)["arguments"][name]
        except KeyError:
            raise AttributeError(f"{self.recipe!r} has no option {name!r}") from None

    @property
    def name(self) -> str:
        """The name of the model as it was typed."""
        return self.arguments["model"]

    @functools.cached_property
    def model(self) -> Any:
        """The model, loaded when it is first needed."""
        from nnheads.recipes._load import load

        return load(self.arguments)

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """Name, revision and commit of the loaded model, as a run records them."""
        from nnheads.runs.provenance import model_identity

        return model_identity(self.model, self.name)

    def changed(self, **options: Any) -> Study:
        """Return the same study with other options, such as the second side of a comparison."""
        return Study(self.recipe, {**self.arguments, **options}, self.incidental)

    def facts(self, *, without: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        """Return what identifies a run: its options, the model's name and weights, and `more`.

        without: options that change no number of this run.
        """
        left_out = {*self.incidental, *UNRECORDED, *without}
        kept = {name: value for name, value in self.arguments.items() if name not in left_out}
        who = {"model": self.identity["model"], "weights": self.identity["commit"]}
        return {**kept, **who, **more}

    def open(self, *, item: str = "", without: tuple[str, ...] = (), **more: Any) -> Run:
        """Open the run of these options, or take up the one that is there.

        item: a folder below the revision, for studies with several. without, more: as for `facts`.
        """
        return self.open_as(self.facts(without=without, **more), item)

    def open_as(
        self,
        facts: dict[str, Any],
        item: str = "",
        *,
        name: str | None = None,
        revision: str | None = None,
    ) -> Run:
        """Open a run that is identified by facts of its own.

        name, revision: what its folder is called after, where they are not those of the weights.
        """
        from nnheads.runs.folder import Run

        run = Run(
            self.output,
            self.recipe,
            name or self.name,
            revision or self.identity["revision"],
            facts,
            item=item,
            overwrite=self.overwrite,
        )
        run.work_with(self.model, self.name)
        return run

    def in_batches(
        self,
        run: Run,
        measure: Callable[[xr.Dataset], xr.Dataset],
        prompts: xr.Dataset,
        *,
        name: str,
        title: str,
    ) -> xr.Dataset:
        """Measure prompts in batches of `--batch-size`, each of which is kept in the run's folder.

        name, title: of what is measured, in file names and beside the progress bar.
        """
        from nnheads.runs import batches

        return batches.run(
            measure,
            prompts,
            size=self.batch_size,
            parts=run.parts,
            name=name,
            title=title,
            quiet=self.quiet,
            model=run.model,
        )


def study(
    recipe: str | None = None,
    *,
    without: tuple[str, ...] = (),
    incidental: tuple[str, ...] = (),
    quick: dict[str, Any] | None = None,
    **defaults: Any,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a command of a function: add the shared options, and pass a `Study` first.

    recipe: the folder below the results; default: the name of the function's module.
    without: shared options that this study does not have. defaults: of those that it has
        (`limit=100`).
    incidental: options that say how something is shown and change no number of a run.
    quick: what `--quick` makes of options that are not given otherwise, so that a model of a
        hundred million parameters is answered for within a minute on a laptop; a value may follow
        from the other options. None: it has none.
    """

    def decorate(main: Callable[..., None]) -> Callable[..., None]:
        folder = recipe or main.__module__.rpartition(".")[2].replace("_", "-")
        given = defaults if quick is None else {**defaults, "quick": False}
        parameters = parameters_of(main, without, given)
        own = list(inspect.signature(main).parameters)[1:]

        @functools.wraps(main)
        def command(**arguments: Any) -> None:
            if arguments.get("quick"):
                usual = {one.name: one.default for one in parameters}
                arguments = shortened(arguments, usual, quick or {})
            main(Study(folder, arguments, incidental), **{name: arguments[name] for name in own})

        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        annotations = {one.name: one.annotation for one in parameters}
        command.__annotations__ = {**annotations, "return": None}
        del command.__wrapped__  # what typer reads is the signature above
        return command

    return decorate


def shortened(
    arguments: dict[str, Any], usual: dict[str, Any], quick: dict[str, Any]
) -> dict[str, Any]:
    """Return options as `--quick` means them, and print which these are.

    What was given otherwise than by default stays. Results lie in a folder of their own, so that
    they are not in the way of those that take longer.
    """
    named = {"top"} if arguments.get("heads") else set()  # then there is nothing to rank
    meant = {
        name: value(arguments) if callable(value) else value
        for name, value in quick.items()
        if arguments[name] == usual[name] and name not in named
    }
    fewer = {name: value for name, value in meant.items() if value != usual[name]}
    if fewer:
        said = (f"--{name.replace('_', '-')} {value}" for name, value in fewer.items())
        say(f"quick: {' '.join(said)}")
    return {**arguments, **fewer, "output": arguments["output"] / "quick"}


def parameters_of(
    main: Callable[..., None], without: tuple[str, ...], defaults: dict[str, Any]
) -> list[inspect.Parameter]:
    """Return a study's own parameters and the shared ones behind them, as keywords."""
    unknown = set(defaults) - set(SHARED)
    assert not unknown, f"no shared options: {unknown}"
    hints = get_type_hints(main, include_extras=True)
    own = list(inspect.signature(main).parameters.values())[1:]  # behind the study itself
    spelled = [keyword(one.name, hints[one.name], one.default) for one in own]
    left_out = {one.name for one in own} | set(without)
    shared = [
        keyword(name, annotation, defaults.get(name, default))
        for name, (annotation, default) in SHARED.items()
        if name not in left_out
    ]
    return spelled + [one for one in shared if one.default is not NEEDS_DEFAULT]


def keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    """Return a parameter that is passed by name."""
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)
