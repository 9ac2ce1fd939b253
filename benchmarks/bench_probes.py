"""Logistic probes on many heads: the batched solver against scikit-learn, one fit a head, on the
same features.

Features are as correlated as those of real heads are (variance falls as one over the rank),
standardised; labels are noisy. Coefficients have to agree to 1e-4 with scikit-learn driven to its
minimum, and decisions on held-out rows exactly, before a second is printed. scikit-learn is timed
in four ways: as published code calls it (tolerance 1e-4) and driven to the minimum, each with the
    threads that it takes by itself and with one, which on products of this size
is often far faster. The ratio says how much slower a way is.
Run: make bench, or
    python benchmarks/bench_probes.py [--heads 128] [--rows 2000] [--dims 128] [--folds 1] [--full]
"""

from __future__ import annotations

import argparse
import os
import time

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from nnheads.stats.logistic import fit

AGREE = 1e-4
# seconds for one way of scikit-learn, after which its time is that of the fits so far, scaled up
PATIENCE = 30.0
WAYS = {
    "scikit-learn, tolerance 1e-4": (1e-4, None),
    "scikit-learn, tolerance 1e-10": (1e-10, None),
    "scikit-learn, tolerance 1e-4, one thread": (1e-4, 1),
    "scikit-learn, tolerance 1e-10, one thread": (1e-10, 1),
}


def drawn(heads: int, rows: int, dims: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Standardised features [head, row, dim] and labels [row] that each head knows to another
    degree.
    """
    generator = np.random.default_rng(seed)
    label = generator.integers(0, 2, rows)
    x = np.empty((heads, rows, dims), np.float32)
    for head in range(heads):
        turned = np.linalg.qr(generator.standard_normal((dims, dims)))[0]
        noise = generator.standard_normal((rows, dims)) * np.arange(1, dims + 1) ** -0.5
        knows = (
            generator.uniform(0, 0.3)
            * (2 * label - 1)[:, None]
            * generator.standard_normal(dims)
            / dims**0.5
        )
        x[head] = (noise + knows) @ turned
    return (x - x.mean(1, keepdims=True)) / x.std(1, keepdims=True), label


def loop(x: np.ndarray, label: np.ndarray, tolerance: float, threads: int | None, patience: float):
    """Models of as many heads as there is patience for, and seconds a fit."""
    # in single precision scikit-learn works in single precision, which does not reach the minimum
    dtype = np.float64 if tolerance < 1e-4 else np.float32
    models, begin = [], time.perf_counter()
    with threadpool_limits(threads):
        for own in x:
            models.append(
                LogisticRegression(C=1.0, tol=tolerance, max_iter=10_000).fit(
                    own.astype(dtype), label
                )
            )
            if time.perf_counter() - begin > patience:
                break
    return models, (time.perf_counter() - begin) / len(models)


def check(
    x: np.ndarray, unseen: np.ndarray, models: list, weight: np.ndarray, intercept: np.ndarray
) -> tuple:
    """The largest difference of coefficients, and how many decisions on rows held out differ."""
    difference, other = 0.0, 0
    for head, model in enumerate(models):
        difference = max(difference, float(np.abs(model.coef_[0] - weight[head]).max()))
        difference = max(difference, abs(float(model.intercept_[0]) - intercept[head]))
        says = unseen[head].astype(float) @ weight[head] + intercept[head] > 0
        other += int((says != (model.predict(unseen[head].astype(float)) == 1)).sum())
    return difference, other


def compared(heads: int, rows: int, dims: int, folds: int, patience: float) -> tuple:
    """Return how many fits were compared, the largest difference of their coefficients, and the
    seconds that each way took; nothing where they differ.
    """
    seconds: dict[str, float] = dict.fromkeys(["nnheads", *WAYS], 0.0)
    worst, others, count = 0.0, 0, 0
    for fold in range(folds):
        x, label = drawn(heads, rows + rows // 4, dims, seed=fold)
        train, unseen = x[:, :rows], x[:, rows:]
        tensors = torch.from_numpy(train), torch.from_numpy(label[:rows])
        fit(tensors[0][:2], tensors[1])  # start threads
        begin = time.perf_counter()
        weight, intercept = (part.numpy() for part in fit(*tensors))
        seconds["nnheads"] += time.perf_counter() - begin
        for name, (tolerance, threads) in WAYS.items():
            models, each = loop(train, label[:rows], tolerance, threads, patience)
            seconds[name] += each * heads
            if tolerance < 1e-4:
                difference, other = check(train, unseen, models, weight, intercept)
                worst, others, count = max(worst, difference), others + other, count + len(models)
    if worst > AGREE or others:
        raise SystemExit(
            f"coefficients differ by up to {worst:.1e}, {others} decisions differ: no ratio"
        )
    return count, worst, seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for name, value in (("heads", 128), ("rows", 2000), ("dims", 128), ("folds", 1)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument(
        "--full", action="store_true", help="1,024 heads, 4,000 rows, 2 folds, every fit"
    )
    given = parser.parse_args()
    heads, rows, folds = (1024, 4000, 2) if given.full else (given.heads, given.rows, given.folds)
    print(
        f"{heads} heads x {folds} folds, {rows} rows of {given.dims} numbers; {os.cpu_count()}"
        " cores"
    )
    patience = np.inf if given.full else PATIENCE
    count, worst, seconds = compared(heads, rows, given.dims, folds, patience)
    print(
        f"{count} fits agree: coefficients to {worst:.1e}, all decisions on {rows // 4} rows"
        " held out"
    )
    for name, spent in seconds.items():
        each = f"{1000 * spent / (heads * folds):8.1f} ms a probe"
        print(f"{name:<44} {spent:8.1f} s {each}  {spent / seconds['nnheads']:6.1f} x")


if __name__ == "__main__":
    main()
