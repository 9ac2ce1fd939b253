"""Resolve the options of `nnheads circuit`: groups of heads, a ranking, and sets of prompts."""

from __future__ import annotations

from pathlib import Path

from nnheads.recipes._checks import check_choice
from nnheads.recipes._study import Study

from nnheads.errors import BadInput

FROM_OTHERS = ("mean", "resample")  # ablations that take values from other prompts
FEWEST = 100  # sentences that means are over


def check(study: Study) -> None:
    """Refuse options that do not go together, before anything is loaded."""
    from nnheads.patching.circuit import REMOVALS

    check_choice("--ablation", study.ablation, REMOVALS)
    if study.mean_set is None:
        return
    if study.ablation not in FROM_OTHERS:
        raise BadInput(f"--mean-set is for mean and resample ablation, not for {study.ablation}")
    if study.prompts is None:
        raise BadInput(
            "--mean-set goes with --prompts; our own sentences have theirs, with three fresh names"
        )


def groups_in(text: str) -> dict[str, list[tuple[int, int]]]:
    """Return name -> heads of `9.9,9.6` or `movers: 9.9,9.6; inhibition: 7.3`."""
    groups: dict[str, list[tuple[int, int]]] = {}
    pieces = [piece for piece in text.split(";") if piece.strip()]
    for number, piece in enumerate(pieces, 1):
        name, _, listed = piece.rpartition(":")
        name = name.strip() or ("circuit" if len(pieces) == 1 else f"group {number}")
        if name in groups:
            raise BadInput(f"--heads names the group {name!r} twice")
        groups[name] = group_in(listed, name)
    if not groups:
        raise BadInput("--heads names no head; a circuit needs at least one, as 9.9,9.6")
    return groups


def group_in(text: str, name: str) -> list[tuple[int, int]]:
    """Return the heads of one group."""
    from nnheads.models.names import parse_head

    heads = [parse_head(head) for head in text.split(",") if head.strip()]
    if not heads:
        example = "'name: 9.9,9.6; other: 7.3'"
        raise BadInput(f"--heads: the group {name!r} is empty; write {example}")
    return heads


def ranking_of(study: Study):
    """Return `ranking` (layer, head) of `--from` as a dataset; None without that option.

    NaN stands for heads of the model that the other run has no value for.
    """
    from nnheads.patching.circuit import every_head

    if study.from_ is None:
        return None
    values = read_ranking(study.from_, study.statistic)
    layers, heads = (max(part) + 1 for part in zip(*every_head(study.model)))
    highest = int(values["layer"].max())
    if highest >= layers or values.sizes["head"] != heads:
        raise BadInput(
            f"{study.from_} ranks heads up to layer {highest}, {values.sizes['head']} a layer; this"
            f" model has layers 0 to {layers - 1} of {heads}: rank by a run of the same model"
        )
    return values.reindex(layer=range(layers)).astype("float32").to_dataset(name="ranking")


def read_ranking(path: Path, statistic: str):
    """Return a statistic (layer, head) of another run."""
    from nnheads.runs import store

    scores = store.load(path / "heads.nc" if path.is_dir() else path)
    known = [str(name) for name in scores.data_vars if set(scores[name].dims) == {"layer", "head"}]
    if statistic not in known:
        names = ", ".join(known) or "none"
        raise BadInput(f"{path} has no statistic {statistic!r} of heads; it has {names}")
    values = scores[statistic].transpose("layer", "head")
    if not bool(values.notnull().any()):
        missing = f"{statistic} has no value for any head"
        raise BadInput(f"{path}: {missing}, so heads cannot be ranked by it")
    return values


def prompt_sets(study: Study) -> dict:
    """Return the prompts to judge by, others to rank heads by, and those that means are over.

    None stands for means over the prompts themselves.
    """
    from nnheads.prompts.ioi import ioi
    from nnheads.prompts.pair_files import read_pairs
    from nnheads.prompts.pairs import tokenize

    tokenizer, limit, seed = study.model.tokenizer, study.limit, study.seed
    if study.prompts is not None:
        pairs = tokenize(tokenizer, read_pairs(study.prompts)[:limit])
        means = None if study.mean_set is None else tokenize(tokenizer, read_pairs(study.mean_set))
        return {"prompts": pairs, "ranked_on": pairs, "mean_set": means}
    fresh = ioi(tokenizer, max(limit, FEWEST), seed=seed + 2, corruption="abc")
    return {
        "prompts": ioi(tokenizer, limit, seed=seed),
        "ranked_on": ioi(tokenizer, limit, seed=seed + 1),
        "mean_set": fresh.assign(token=fresh["corrupted"]),
    }


def check_others(sets: dict, ablation: str) -> None:
    """Refuse prompts that would get their own values back for want of others."""
    from nnheads.patching.behaviours import with_others

    if ablation not in FROM_OTHERS:
        return
    prompts, means = sets["prompts"], sets["mean_set"]
    alone = ~with_others(prompts, prompts if means is None else means)
    if alone.any():
        where = "them" if means is None else "the mean set"
        raise BadInput(
            f"{alone.sum()} of {len(alone)} prompts have no other of their template and length in"
            f" {where}, so there is nothing to put in for a head; give such with --mean-set, or"
            " --ablation corrupted, zero or uniform"
        )
