"""Computes the numbers in the SynFlow paper's figures, from networks and from runs.

Each function returns a table, which is a list of rows; `paper_figures` draws tables.

References:
  Tanaka et al., arXiv 2006.05467: figures 1 and 6 (accuracy against compression), 2
  (what is left of each layer), 3 (conservation at each unit), 4 (layer size and score),
  7 (how much one step removes).
"""

import csv
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow import frameworks
from tf_synflow.criteria import DATA_FREE
from tf_synflow.experiments.collapse import masks_at
from tf_synflow.experiments.sweep import MORE_AXES
from tf_synflow.flow.loop import prune_by_flow
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.counts import plan
from tf_synflow.masks.types import Scores
from tf_synflow.policy.pruning_policy import PruningPolicy

Table = list[dict[str, Any]]

Progress = Callable[[Iterable], Iterable]


def accuracies(runs: Sequence[Mapping[str, Any]], which: str) -> Table:
    """Accuracy against compression, from the runs of a sweep.

    Args:
      runs: Rows of `sweep.rows`, or of its `runs.csv`.
      which: "final" or "best".

    Returns:
      `model`, `dataset`, `criterion`, `alpha` (log10 of the compression ratio), and
      `mean`, `min` and `max` of the test accuracy over the seeds, in percent.

    Raises:
      ValueError: The runs differ in more than seeds.
    """
    for axis in MORE_AXES:
        values = sorted({str(run[axis]) for run in runs if run.get(axis) is not None})
        if len(values) > 1:
            raise ValueError(
                f"the runs have several values of {axis} ({', '.join(values)}), but "
                "this figure averages over seeds only. Give only folders whose runs "
                f"have one value of {axis}; or see the sweep's summary.csv, which has "
                "a row for each value"
            )
    groups = defaultdict(list)
    for run in runs:
        alpha = math.log10(_compression(float(run["ratio"])))
        key = (run["model"], run["dataset"], run["criterion"], alpha)
        groups[key].append(100 * float(run[f"{which}_accuracy"]))
    columns = ("model", "dataset", "criterion", "alpha")
    return [
        dict(zip(columns, key, strict=True), **_spread(values))
        for key, values in sorted(groups.items())
    ]


def published(file: Path, model: str, dataset: str, which: str) -> Table:
    """The authors' own accuracies, with the same columns as `accuracies`.

    Args:
      file: A file in docs/published.
      model: Name of the network.
      dataset: Name of the data set.
      which: "final" or "best".
    """
    with open(file, newline="") as stream:
        rows = list(csv.DictReader(stream))
    return [
        {
            "model": model,
            "dataset": dataset,
            "criterion": row["criterion"],
            "alpha": float(row["log10_ratio"]),
            **{k: float(row[f"{which}_top1_{k}"]) for k in ("mean", "min", "max")},
        }
        for row in rows
        if row.get("model", model) == model and row.get("dataset", dataset) == dataset
    ]


def layer_densities(
    model: Any,
    data: Any,
    criteria: Sequence[str],
    alphas: Sequence[float],
    seed: int = 0,
) -> Table:
    """Figure 2: what each criterion leaves of each layer.

    Args:
      model: A built model.
      data: `(x, y)` for the criteria that need it.
      criteria: Names of criteria.
      alphas: log10 of the compression ratios.
      seed: Seed of the criterion "random". Defaults to 0.

    Returns:
      `criterion`, `alpha`, `layer` (from 1), `name`, `size` and `density`.
    """
    table = []
    for criterion in criteria:
        policy = PruningPolicy(criterion, seed=seed, on_collapse="ignore")
        own = None if criterion in DATA_FREE else data
        pruned = masks_at(model, policy, alphas, own)
        for alpha, found in zip(alphas, pruned, strict=True):
            for layer, (name, mask) in enumerate(found.items(), 1):
                row = {"criterion": criterion, "alpha": alpha, "layer": layer}
                what = {"name": name, "size": mask.size, "density": float(mask.mean())}
                table.append({**row, **what})
    return table


def mean_densities(tables: Sequence[Table]) -> Table:
    """The mean of tables from `layer_densities`, for several networks of one kind."""
    return [
        {**rows[0], "density": float(np.mean([row["density"] for row in rows]))}
        for rows in zip(*tables, strict=True)
    ]


def conservation(model: Any, data: Any) -> Table:
    """Figure 3: the scores of the weights into each hidden unit, and out of it.

    Args:
      model: A built model whose prunable layers form one chain, like VGG. Its biases
        and the offsets of BatchNormalization are 0, as before training.
      data: `(x, y)`.

    Returns:
      `criterion` ("snip", here with its sign, "grasp" and "synflow"), `layer` (from 1),
      `unit`, and `incoming` and `outgoing`, the sums of the scores of the weights into
      the unit and out of it.

    Raises:
      ValueError: The layers form no chain.
    """
    table = []
    for criterion in (_signed_snip, "grasp", "synflow"):
        policy = PruningPolicy(criterion)
        scores = policy.score(model, None if criterion == "synflow" else data)
        kernels = list(scores.values())
        for layer, (before, after) in enumerate(
            zip(kernels, kernels[1:], strict=False), 1
        ):
            if before.shape[-1] != after.shape[-2]:
                raise ValueError(
                    f"layer {layer} has {before.shape[-1]} units and the next takes "
                    f"{after.shape[-2]}: conservation is drawn for chains like VGG"
                )
            into = before.reshape(-1, before.shape[-1]).sum(0)
            out = np.moveaxis(after, -2, 0).reshape(after.shape[-2], -1).sum(1)
            name = criterion if isinstance(criterion, str) else "snip"
            for unit, (i, o) in enumerate(zip(into, out, strict=True)):
                sums = {"incoming": float(i), "outgoing": float(o)}
                table.append({"criterion": name, "layer": layer, "unit": unit, **sums})
    return table


def _signed_snip(model: Any, data: Any) -> Scores:
    """The products w g, which are conserved; SNIP takes their absolute values."""
    x, y = data
    weights = frameworks.read(model).weights
    kernels = {n: v for n, v in weights.items() if n.endswith("/kernel")}
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    with tf.GradientTape() as tape:
        value = loss(y, model(x, training=False))
    gradients = tape.gradient(value, list(kernels.values()))
    pairs = zip(kernels.items(), gradients, strict=True)
    return {name: (v * g).numpy() for (name, v), g in pairs}


def layer_sizes(model: Any, data: Any, criteria: Sequence[str]) -> Table:
    """Figure 4: the larger a layer, the lower its scores.

    Args:
      model: A built model.
      data: `(x, y)` for the criteria that need it.
      criteria: Names of criteria.

    Returns:
      `criterion`, `name`, `size` and `score`, the mean of the layer's absolute scores.
    """
    table = []
    for criterion in criteria:
        policy = PruningPolicy(criterion)
        scores = policy.score(model, None if criterion in DATA_FREE else data)
        for name, score in scores.items():
            mean = float(np.abs(score).mean())
            row = {"criterion": criterion, "name": name}
            table.append({**row, "size": score.size, "score": mean})
    return table


def largest_steps(
    model: Any,
    alphas: Sequence[float],
    iterations: Sequence[int],
    schedules: Sequence[str] = ("exponential", "linear"),
    progress: Progress = iter,
) -> Table:
    """Figure 7: the largest share of the flow that one step of SynFlow removes.

    A step that removes less than the whole flow of a layer cannot empty this layer
    while other layers still have weights to remove (the paper's theorem 3).

    Args:
      model: A built model.
      alphas: log10 of the compression ratios.
      iterations: Numbers of iterations.
      schedules: Names of schedules. Defaults to "exponential" and "linear".
      progress: Wraps the steps of each pruning, as tqdm does.

    Returns:
      `schedule`, `alpha`, `iterations`, and `share`: the largest sum of scores that a
      step removes, over the flow R at that step.
    """
    table = []
    for schedule in schedules:
        for alpha in alphas:
            for count in iterations:
                policy = PruningPolicy(iterations=count, schedule=schedule)
                task = policy.prepare(model)
                steps = plan(task.start, 10**alpha, count, schedule, policy.scope)
                removed: list[float] = []
                prune_by_flow(
                    task.problem.network,
                    task.problem.weights,
                    task.start,
                    steps,
                    progress=progress,
                    removed=removed,
                )
                row = {"schedule": schedule, "alpha": alpha, "iterations": count}
                table.append({**row, "share": max(removed)})
    return table


def _compression(ratio: float) -> float:
    return ratio if ratio >= 1 else 1 / (1 - ratio)


def _spread(values: Sequence[float]) -> dict[str, float]:
    mean = sum(values) / len(values)
    return {"mean": mean, "min": min(values), "max": max(values)}
