"""One folder per run: labelled data, pictures, and enough about both to repeat and to trust them.

    run = Run("results", "ioi", "gpt2", "main", {"seed": 0})
    run.work_with(model, "gpt2")  # its jobs belong to this run
    run.save(heads=heads)         # heads.nc
    run.finish()

Files appear whole or not at all: each is written under a temporary name and renamed. `run.json`
names the command and its arguments; while `complete` is false the folder holds finished parts, and
the same command takes them up again. A folder that holds a run of other arguments is refused with
BadInput; what cannot be written is a RunError.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr

from nnheads.errors import BadInput
from nnheads.remote.ledger import Ledger
from nnheads.remote.place import place_of
from nnheads.runs.provenance import command, model_folder, plain, provenance
from nnheads.runs.store import load, save, write, writing

# Arguments that say where and how fast, but change no number.
INCIDENTAL = {"output", "overwrite", "quiet", "traceback", "batch_size", "submit"}
LONGEST_NAME = 60  # of the words in a folder's name; file systems end at 255


class Run:
    """A results folder: `results/<recipe>/<org--model>/<revision>[/<item>]`.

    Opening it decides what happens to what is there: a run of the same command is taken up where it
    stopped, one of another command is refused, and `overwrite` starts afresh.

    arguments: what identifies the run. item: a folder below the revision.
    ledger: the jobs that servers do for it.
    """

    def __init__(
        self,
        root: str | Path,
        recipe: str,
        model: str,
        revision: str,
        arguments: dict[str, Any],
        *,
        item: str = "",
        overwrite: bool = False,
    ) -> None:
        revision_folder = revision.replace("/", "--")
        self.folder = Path(root) / recipe / model_folder(model) / revision_folder / item
        self.arguments = _identifying(arguments)
        self.facts = arguments
        self.recipe = recipe
        self.files: list[str] = []
        self.model: Any = None
        self.name = ""
        with writing(self.folder):
            if overwrite and self.folder.exists():
                shutil.rmtree(self.folder)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._take_up()
        self.ledger = Ledger() if self.complete else Ledger(self.parts, self.folder)

    def jobs_of(self, model: Any) -> None:
        """Let the jobs of a model belong to this run."""
        place_of(model).belong_to(self.ledger)

    def work_with(self, model: Any, name: str) -> None:
        """Take a model, by the name that it was loaded by, for `jobs_of` and `about`."""
        self.model, self.name = model, name
        self.jobs_of(model)

    def about(
        self, *, title: str, prompts: xr.Dataset | str, references: str, sample_dims: str = "batch"
    ) -> dict[str, Any]:
        """Return what repeats a result of this run, as attributes: see `provenance.provenance`."""
        return provenance(
            title=title,
            model=self.model,
            name=self.name,
            prompts=prompts,
            arguments=self.facts,
            references=references,
            sample_dims=sample_dims,
        )

    def _take_up(self) -> None:
        """Go on with the run that is there, or refuse it."""
        record = self._record()
        if record is None:
            self._write_record(complete=False)
            return
        old, new = record["arguments"], self.arguments
        changed = ", ".join(
            f"{key} {old.get(key)!r} there, {new.get(key)!r} here"
            for key in sorted({*old, *new})
            if json.dumps(old.get(key)) != json.dumps(new.get(key))
        )
        if changed:
            raise BadInput(
                f"{self.folder} holds another run ({changed}); use --overwrite, or another --output"
            )

    def _record(self) -> dict[str, Any] | None:
        path = self.folder / "run.json"
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_bytes())
            sound = isinstance(record["arguments"], dict) and "complete" in record
        except (ValueError, KeyError, TypeError):
            sound = False
        if not sound:
            raise BadInput(f"{path} is not a record of a run; use --overwrite to start afresh")
        return record

    def _write_record(self, *, complete: bool, **more: Any) -> None:
        record = {
            "recipe": self.recipe,
            "command": command(),
            "arguments": self.arguments,
            "complete": complete,
            **more,
        }
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        write(self.folder / "run.json", lambda path: path.write_text(text))

    @property
    def complete(self) -> bool:
        """Return whether the run was finished and all that it wrote is still there."""
        record = self._record()
        if record is None or not record["complete"]:
            return False
        return all((self.folder / name).is_file() for name in record.get("files", []))

    @property
    def parts(self) -> Path:
        """Where finished batches wait until the run is complete."""
        return self.folder / "parts"

    def save(self, **datasets: xr.Dataset) -> list[Path]:
        """Write each dataset to `<name>.nc`."""
        self.files += [f"{name}.nc" for name in datasets]
        sent = {f"remote_{name}": count for name, count in self.sent.items()}
        return [
            save(self.folder / f"{name}.nc", dataset.assign_attrs({**dataset.attrs, **sent}))
            for name, dataset in datasets.items()
        ]

    @property
    def sent(self) -> dict[str, int]:
        """Jobs that servers did for this run, and bytes to and fro; empty if there were none."""
        totals = self.ledger.totals
        return totals if totals["jobs"] else {}

    def picture(self, name: str, figure: Any) -> Path:
        """Write a matplotlib figure to `<name>.png`."""
        self.files.append(f"{name}.png")
        from nnheads.plot import render

        return write(self.folder / f"{name}.png", lambda path: render(figure, path))

    def finish(self, **more: Any) -> None:
        """Mark the run complete and drop its parts."""
        sent = {"remote": self.sent} if self.sent else {}
        self._write_record(complete=True, files=sorted(self.files), **more, **sent)
        shutil.rmtree(self.parts, ignore_errors=True)

    def load(self, name: str) -> xr.Dataset:
        """Read `<name>.nc`. Raises BadInput if it is not there or cannot be read."""
        return load(self.folder / f"{name}.nc")


def share_jobs(runs: Iterable[Run], model: Any, parts: Path) -> None:
    """Let the jobs of a model belong to several runs that need the same prompts.

    Args:
        runs: at least one; the first is named where jobs are not finished.
        parts: where the finished batches of all of them wait.
    """
    runs = list(runs)
    ledger = Ledger(parts, runs[0].folder)
    for run in runs:
        run.ledger = ledger
    runs[0].jobs_of(model)


def _identifying(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that change numbers, as a record holds them."""
    kept = {key: value for key, value in sorted(arguments.items()) if key not in INCIDENTAL}
    return dict(plain(kept))


def item_of(*texts: str) -> str:
    """Return a folder name for one text among many: its first words and a hash of all."""
    words = "-".join(re.findall(r"[a-z0-9]+", texts[0].lower())[:5])[:LONGEST_NAME]
    return f"{words}-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:6]}".lstrip("-")
