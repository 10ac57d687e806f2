"""Prunes by all criteria at several epochs and ratios, and measures the effects."""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tf_synflow import models
from tf_synflow.criteria import LOOPS
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.gradient_flow.bench import Bench, State, Training
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.counts import plan
from tf_synflow.masks.selection import flat, iterate
from tf_synflow.masks.types import Masks, Scores
from tf_synflow.policy.by_filter import FilterTask
from tf_synflow.policy.filters import never_less
from tf_synflow.policy.pruning_policy import PruningPolicy

MOVED = ("moved before", "moves next")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured.

    Attributes:
      model: Name of the network; see `models.build`.
      criteria: Names of criteria; "grasp_t1" is "grasp" at T = 1.
      epochs: Rising numbers of epochs of dense training, after which to prune the
        network.
      ratios: The shares of the weights, or filters, that are removed, below 1.
      seeds: Seeds. Each seed determines a network, the order of its images and the
        sample.
      images: Number of training images for measuring and scoring.
      after: Number of epochs of training after pruning.
      granularity: "weight" or "filter".
      training: How to train; its seed is ignored.
    """

    model: str
    criteria: tuple[str, ...]
    epochs: tuple[int, ...]
    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    images: int
    after: int
    granularity: str
    training: Training

    def __post_init__(self) -> None:
        """Checks the plan.

        Raises:
          ValueError: A setting cannot be measured; the error says what was given.
        """
        for name in ("criteria", "epochs", "ratios", "seeds"):
            values = getattr(self, name)
            if not values or len(set(values)) < len(values):
                raise ValueError(
                    f"{name} must list at least one value, and none of them twice, "
                    f"got {values}"
                )
        if list(self.epochs) != sorted(e for e in self.epochs if e >= 0):
            raise ValueError(
                f"epochs must be whole numbers from 0 on, rising, got {self.epochs}"
            )
        if not all(0 < ratio < 1 for ratio in self.ratios):
            raise ValueError(
                f"ratios must be shares to remove within 0 and 1, got {self.ratios}"
            )
        for criterion in self.criteria:
            if criterion.endswith("_t1") and criterion != "grasp_t1":
                raise ValueError(
                    f"criterion {criterion!r}: only grasp_t1 has T = 1 in its name, "
                    "because only GraSP has another T"
                )
            self.policy(criterion, 0)

    def policy(self, criterion: str, seed: int) -> PruningPolicy:
        """How to score by a criterion."""
        name = criterion.removesuffix("_t1")
        return PruningPolicy(
            name,
            temperature=1.0 if name != criterion else None,
            granularity=self.granularity,
            seed=seed,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            on_collapse="ignore",
            progress=False,
        )

    def units(self) -> int:
        """How many networks are pruned, or left dense, and trained."""
        each = len(self.criteria) * len(self.ratios) + 1
        return len(self.seeds) * len(self.epochs) * each


class Tables(NamedTuple):
    """What was measured, as rows.

    Attributes:
      prunings: A row for each pruned network, and for the dense network (ratio 0).
      correlations: A row for each pair of ways to score the weights, with Spearman's
        rank correlation.
      layers: A row for each layer of a pruned network, with the number of kept weights.
    """

    prunings: list[dict[str, Any]]
    correlations: list[dict[str, Any]]
    layers: list[dict[str, Any]]


def measure(
    what: Plan,
    data: Dataset,
    progress: Callable[[Iterable], Iterable] = iter,
    so_far: Callable[[Tables], None] = lambda tables: None,
) -> Tables:
    """Carries a plan out.

    For each seed, a network is trained. After each of `epochs`, its weights are saved.
    From these weights, the network is pruned by each criterion at each ratio, measured
    before and after pruning, and trained further as a pruned network for `after`
    epochs.

    Args:
      what: The plan.
      data: The data set.
      progress: Wraps the units of work, as tqdm does; there are `Plan.units()`.
      so_far: A function that gets the tables after each epoch of each seed, to write
        them to files. Defaults to a function that does nothing.
    """
    tables = Tables([], [], [])
    for _ in progress(_units(what, data, tables, so_far)):
        pass
    return tables


def _units(
    what: Plan, data: Dataset, tables: Tables, so_far: Callable[[Tables], None]
) -> Iterator[None]:
    for seed in what.seeds:
        keras.backend.clear_session()
        keras.utils.set_random_seed(seed)
        model = models.build(what.model, data.input_shape, data.classes)
        training = dataclasses.replace(what.training, seed=seed)
        bench = Bench(model, data, what.images, training)
        start, done = bench.kernels(), 0
        for epoch in what.epochs:
            bench.train(done, epoch - done)
            done = epoch
            bench.calibrate()
            weights = bench.weights()
            yield from _at(what, bench, {"seed": seed, "epoch": epoch}, start, tables)
            bench.restore(weights)
            so_far(tables)


def _at(
    what: Plan, bench: Bench, where: dict[str, Any], start: Masks, tables: Tables
) -> Iterator[None]:
    """Does all measurements of a network at one epoch."""
    weights, now, before = bench.weights(), bench.kernels(), bench.measure()
    losses = bench.train(where["epoch"], what.after)
    tables.prunings.append(_row(where, "dense", 0, 1, before, before, losses))
    vectors = {"moves next": _distances(now, bench.kernels())}
    if where["epoch"]:
        vectors["moved before"] = _distances(start, now)
    bench.restore(weights)
    yield
    for criterion in what.criteria:
        task = what.policy(criterion, where["seed"]).task(bench.network, bench.sample)
        scores = task.score()
        vectors[criterion] = scores
        for ratio in what.ratios:
            masks = _masks(task, criterion, scores, ratio)
            bench.prune(masks)
            after = bench.measure()
            losses = bench.train(where["epoch"], what.after)
            bench.restore(weights)
            kept = float(np.mean(flat(masks)))
            tables.prunings.append(
                _row(where, criterion, ratio, kept, before, after, losses)
            )
            for name, mask in masks.items():
                counts = {"size": mask.size, "kept": int(mask.sum())}
                layer = {"criterion": criterion, "ratio": ratio, "layer": name}
                tables.layers.append({**where, **layer, **counts})
            yield
    tables.correlations.extend(_correlations(where, task, vectors))


def _row(
    where: dict[str, Any],
    criterion: str,
    ratio: float,
    kept: float,
    before: State,
    after: State,
    losses: list[float],
) -> dict[str, Any]:
    row = {**where, "criterion": criterion, "ratio": ratio, "kept": kept}
    for name, state in (("before", before), ("after", after)):
        row |= {f"{key}_{name}": value for key, value in state._asdict().items()}
    return row | {f"training_{n}": loss for n, loss in enumerate(losses, 1)}


def _masks(task: Any, criterion: str, scores: Scores, ratio: float) -> Masks:
    """The masks that `PruningPolicy.masks` returns, without scoring again."""
    if criterion in LOOPS:
        return task.masks(ratio)
    if isinstance(task, FilterTask):
        steps = plan(task.standing, ratio, 1, "exponential", "global")
        scorer = never_less(lambda _: scores, task.fewest)
        left = iterate(scorer, task.standing, steps)
        return task.filters.weight_masks(left, task.start)
    steps = plan(task.start, ratio, 1, "exponential", "global")
    return iterate(lambda _: scores, task.start, steps)


def _distances(one: Masks, other: Masks) -> Scores:
    return {name: np.abs(other[name] - one[name]) for name in one}


def _correlations(
    where: dict[str, Any], task: Any, vectors: dict[str, Scores]
) -> Iterator[dict[str, Any]]:
    """Rank correlations of all pairs; for filters, of the norms of distances."""
    if isinstance(task, FilterTask):
        for name in vectors.keys() & set(MOVED):
            vectors[name] = {
                kernel: np.linalg.norm(
                    task.filters.by_filter(kernel, vectors[name][kernel]), 2, 0
                )
                for kernel in task.filters.sizes
            }
    ranked = {name: ranks(flat(scores)) for name, scores in vectors.items()}
    for one, other in itertools.combinations(ranked, 2):
        rho = float(np.corrcoef(ranked[one], ranked[other])[0, 1])
        yield {**where, "one": one, "other": other, "spearman": rho}


def ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value; equal values get the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[place]
