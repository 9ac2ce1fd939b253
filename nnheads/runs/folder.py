"""One folder per run: labelled data, pictures, and enough about both to repeat and to trust them.

    run = Run("results", "ioi", "gpt2", "main", {"seed": 0})
    run.work_with(model, "gpt2")  # its jobs belong to this run
    run.save(heads=heads)         # heads.nc
    run.finish()

Files appear whole or not at all: each is written under a temporary name and renamed. `run.json`
names the command and its arguments; while `complete` is false the folder holds finished parts, and
the same command takes them up again. It is written with the first thing that is kept, so a command
that is refused leaves nothing in the way of the next. When a run is finished it also holds a hash
of each file: a run with a damaged file is not complete. A folder that holds a run of other
arguments is refused with BadInput; what cannot be written is a RunError.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xarray as xr

from nnheads.remote.ledger import Ledger
from nnheads.remote.place import place_of
from nnheads.runs.earlier import PARTS, identifying, is_complete, take_up
from nnheads.runs.provenance import command, model_folder, provenance
from nnheads.runs.record import RECORD
from nnheads.runs.store import check_writable, file_hash, load, save, write, writing

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
        self.arguments = identifying(arguments)
        self.facts = arguments
        self.recipe = recipe
        self.files: list[str] = []
        self.model: Any = None
        self.name = ""
        with writing(self.folder):
            self.owned = take_up(self.folder, self.arguments, overwrite)
            check_writable(self.folder)
        self.ledger = Ledger()
        if not self.complete:
            self.ledger = Ledger(self.folder / PARTS, self.folder, begin=self.begin)

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

    def _write_record(self, *, complete: bool, **more: Any) -> None:
        record = {
            "recipe": self.recipe,
            "command": command(),
            "arguments": self.arguments,
            "complete": complete,
            "owned": sorted(self.owned),
            **more,
        }
        text = json.dumps(record, indent=2, sort_keys=True) + "\n"
        write(self.folder / RECORD, lambda path: path.write_text(text))

    @property
    def complete(self) -> bool:
        """Return whether the run was finished and all that it wrote is still there, unharmed."""
        return is_complete(self.folder)

    @property
    def parts(self) -> Path:
        """Where finished batches wait until the run is complete."""
        self.begin()
        return self.folder / PARTS

    def begin(self) -> None:
        """Write the record, if there is none, because something is about to be kept."""
        if not (self.folder / RECORD).exists():
            self._write_record(complete=False)

    def own(self, name: str) -> Path:
        """Return where a file or folder of this run is; `--overwrite` may delete it."""
        self.begin()
        if name not in self.owned:
            self.owned.append(name)
            self._write_record(complete=False)
        return self.folder / name

    def _add(self, name: str) -> Path:
        """Return where a file of results is."""
        if name not in self.files:
            self.files.append(name)
        return self.own(name)

    def save(self, **datasets: xr.Dataset) -> list[Path]:
        """Write each dataset to `<name>.nc`."""
        sent = {f"remote_{name}": count for name, count in self.sent.items()}
        return [
            save(self._add(f"{name}.nc"), dataset.assign_attrs({**dataset.attrs, **sent}))
            for name, dataset in datasets.items()
        ]

    @property
    def sent(self) -> dict[str, int]:
        """Jobs that servers did for this run, and bytes to and fro; empty if there were none."""
        totals = self.ledger.totals
        return totals if totals["jobs"] else {}

    def picture(self, name: str, figure: Any) -> Path:
        """Write a matplotlib figure to `<name>.png`."""
        from nnheads.plot import render

        return write(self._add(f"{name}.png"), lambda path: render(figure, path))

    def keep(self, name: str, text: str) -> Path:
        """Write a text of this run, such as what a model was asked for once."""
        return write(self.own(name), lambda path: path.write_text(text))

    def finish(self, **more: Any) -> None:
        """Mark the run complete and drop its parts."""
        sent = {"remote": self.sent} if self.sent else {}
        files = sorted(set(self.files))
        hashes = {name: file_hash(self.folder / name) for name in files}
        self._write_record(complete=True, files=files, sha256=hashes, **more, **sent)
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

    def begin() -> None:
        for run in runs:
            run.begin()

    ledger = Ledger(parts, runs[0].folder, begin=begin)
    for run in runs:
        run.ledger = ledger
    runs[0].jobs_of(model)


def item_of(*texts: str) -> str:
    """Return a folder name for one text among many: its first words and a hash of all."""
    words = "-".join(re.findall(r"[a-z0-9]+", texts[0].lower())[:5])[:LONGEST_NAME]
    return f"{words}-{hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:6]}".lstrip("-")
