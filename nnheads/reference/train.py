"""Train the reference model: python -m nnheads.reference.train --out FOLDER [--seed 0] [--minutes
50].

Two processes of one thread each draw their own documents and average their gradients. Progress is
measured in time, so the schedule fits any machine and a run ends when it should, but two runs are
never equal to the bit. A line of JSON every 50 steps says what was learned so far.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
import torch.distributed as dist
from transformers import LlamaForCausalLM

from nnheads.reference.optim import Muon
from nnheads.reference.scaffold import (
    PLANTED,
    Scaffold,
    dropped_heads,
)
from nnheads.reference.step_rows import SCAFFOLD_END, Batch, draw
from nnheads.reference.untrained import initial_model, write

PROCESSES = 2
MINUTES = 50.0
WARM_UP = 100
CONSTANT_UNTIL, LAST_RATE = 0.5, 0.02
MUON_RATE, ADAM_RATE, ADAM_BETAS = 5e-3, 3e-3, (0.9, 0.98)
# Scaffold: full weight, then a line down to what stays to the end for the jobs that fade without
# it.
SCAFFOLD, SCAFFOLD_FULL = 0.7, 0.12
# The duplicate-token head is the hardest to teach: it also has to look away from its own position.
SCAFFOLD_FACTOR = {"duplicate": 2.0}
SCAFFOLD_REST = {"duplicate": 0.3, "induction": 0.05, "receiver": 0.03}
TASK_WEIGHTS = (
    {"repeat": 2.5, "duplicate": 2.0, "needle": 1.5, "ioi": 0.7, "facts": 1.2, "states": 1.0},
    {"repeat": 1.5, "duplicate": 1.0, "needle": 1.5, "ioi": 1.0, "facts": 1.5, "states": 1.0},
)
LOG_EVERY, SAVE_EVERY = 50, 300


def task_losses(
    model: LlamaForCausalLM, batch: Batch, log: dict[str, list[float]]
) -> dict[str, torch.Tensor]:
    """Return for each task the weighted mean cross entropy; also logs the accuracy on what can be
    known.
    """
    hidden = model.model(input_ids=batch.tokens, use_cache=False).last_hidden_state[:, :-1]
    weights, wanted = batch.weights[:, 1:], batch.tokens[:, 1:]
    chosen = weights > 0
    logits = model.lm_head(hidden[chosen])
    losses = torch.nn.functional.cross_entropy(logits, wanted[chosen], reduction="none")
    correct = logits.argmax(-1) == wanted[chosen]
    rows, weight = chosen.nonzero(as_tuple=True)[0], weights[chosen]
    found = {}
    for task in sorted(set(batch.tasks)):
        mine = torch.tensor([name == task for name in batch.tasks])[rows]
        found[task] = (losses * weight)[mine].sum() / weight[mine].sum()
        known = mine & (weight >= 0.9)
        log[task].append(correct[known].float().mean().item())
    return found


def scaffold_weight(job: str, progress: float) -> float:
    slope = (SCAFFOLD_END - progress) / (SCAFFOLD_END - SCAFFOLD_FULL)
    return max(
        SCAFFOLD_FACTOR.get(job, 1.0) * SCAFFOLD * min(1.0, slope), SCAFFOLD_REST.get(job, 0.0)
    )


def accumulate(
    model: LlamaForCausalLM,
    scaffold: Scaffold,
    batches: list[Batch],
    generator: torch.Generator,
    progress: float,
    log: dict[str, list[float]],
) -> None:
    """Add the gradients of one step's documents."""
    multipliers = TASK_WEIGHTS[progress > SCAFFOLD_END]
    appears: dict[str, int] = defaultdict(int)
    for batch in batches:
        for job in batch.targets:
            appears[job] += 1
    for batch in batches:
        scaffold.targets, scaffold.losses = batch.targets, {}
        scaffold.keep = dropped_heads(len(batch.tasks), model.config.num_attention_heads, generator)
        losses = task_losses(model, batch, log)
        total = torch.stack([multipliers[task] * loss for task, loss in losses.items()]).sum()
        for head, loss in scaffold.losses.items():
            job = PLANTED[head]
            log["L{}H{} {}".format(*head, job)].append(torch.exp(-loss.detach()).item())
            total = total + scaffold_weight(job, progress) / appears[job] * loss
        total.backward()


def rate(step: int, progress: float) -> float:
    """Return the share of the full learning rate: a short rise, a plateau, a line down to the last
    rate.
    """
    fall = (progress - CONSTANT_UNTIL) / (1 - CONSTANT_UNTIL)
    return min(1.0, (step + 1) / WARM_UP) * (1 - (1 - LAST_RATE) * min(1.0, max(0.0, fall)))


def average_gradients(parameters: list[torch.nn.Parameter]) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    sizes = [gradient.numel() for gradient in gradients]
    for gradient, average in zip(gradients, flat.split(sizes), strict=True):
        gradient.copy_(average.view_as(gradient))


def shared_progress(started: float, seconds: float) -> float:
    """Return progress as the first process sees it, so that both follow one schedule."""
    progress = torch.tensor([(time.monotonic() - started) / seconds])
    dist.broadcast(progress, 0)
    return progress.item()


def report(
    step: int, progress: float, seconds: float, tokens: int, log: dict[str, list[float]]
) -> None:
    values = {name: round(sum(listed) / len(listed), 3) for name, listed in sorted(log.items())}
    line = {
        "step": step,
        "seconds": round(seconds),
        "tokens": tokens,
        "progress": round(progress, 3),
    }
    print(json.dumps(line | values), flush=True)
    log.clear()


class Optimizers:
    """Muon for the matrices of the blocks, AdamW for embeddings and norms."""

    def __init__(self, model: LlamaForCausalLM) -> None:
        self.matrices = [
            parameter for parameter in model.model.layers.parameters() if parameter.ndim == 2
        ]
        taken = {id(parameter) for parameter in self.matrices}
        self.others = [parameter for parameter in model.parameters() if id(parameter) not in taken]
        self.muon = Muon(self.matrices)
        self.adam = torch.optim.AdamW(self.others, lr=ADAM_RATE, betas=ADAM_BETAS, weight_decay=0.0)

    def step(self, share: float) -> None:
        """Take one step at this share of the full learning rates, with gradients averaged over the
        processes.
        """
        average_gradients([*self.matrices, *self.others])
        torch.nn.utils.clip_grad_norm_(self.others, 1.0)
        self.muon.step(MUON_RATE * share)
        self.adam.param_groups[0]["lr"] = ADAM_RATE * share
        self.adam.step()


def train(rank: int, arguments: argparse.Namespace) -> None:
    """Run one of the two processes."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=PROCESSES)
    model, scaffold = initial_model(arguments.seed), Scaffold()
    model.config._attn_implementation = scaffold.register()
    optimizers = Optimizers(model)
    rng = random.Random(1000 * arguments.seed + rank)
    generator = torch.Generator().manual_seed(1000 * arguments.seed + rank)
    log: dict[str, list[float]] = defaultdict(list)
    started = saved = time.monotonic()
    step, tokens, progress = 0, 0, 0.0
    while progress < 1:
        batches = draw(rng, generator, progress)
        model.zero_grad(set_to_none=False)
        accumulate(model, scaffold, batches, generator, progress, log)
        optimizers.step(rate(step, progress))
        step += 1
        tokens += PROCESSES * sum(int((batch.tokens != 0).sum()) for batch in batches)
        progress = shared_progress(started, 60 * arguments.minutes)
        if rank == 0 and (step % LOG_EVERY == 0 or progress >= 1):
            report(step, progress, time.monotonic() - started, tokens, log)
        if rank == 0 and (time.monotonic() - saved > SAVE_EVERY or progress >= 1):
            write(model, arguments.out)
            saved = time.monotonic()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=MINUTES)
    arguments = parser.parse_args()
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    os.environ.setdefault("MASTER_PORT", "29531")
    torch.multiprocessing.spawn(train, args=(arguments,), nprocs=PROCESSES)


if __name__ == "__main__":
    main()
