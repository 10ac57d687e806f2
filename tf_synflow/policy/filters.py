"""Pruning by whole filters: which can be removed, and how filters are scored.

A *filter* gives one output channel of a convolution, or one unit of a Dense layer. A
filter is removed together with all weights that its channel passes on the way, such as
a depthwise filter or the scale of a BatchNormalization, and with the weights that read
the channel. So `shrink` can take the channel out of the network.

These filters stay: filters whose channels are combined with those of other layers, as
by the Add at the end of a residual block; filters that a strided 1x1 convolution reads
(see `shrink`); and the outputs of the network. On request, filters whose channels are
added are pruned too, in another way: see `added_filters`.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839.
"""

import math
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import numpy as np

from tf_synflow.channels import needed
from tf_synflow.channels.groups import Channels, along, more
from tf_synflow.criteria import CRITERIA, DATA_FREE, Problem
from tf_synflow.criteria.gradient_norm_preservation import gradient_norm_changes
from tf_synflow.criteria.gradients import over_total
from tf_synflow.masks.counts import highest_ratio, lowest_ratio
from tf_synflow.masks.types import Masks, Plan, Scorer, Scores
from tf_synflow.network import Network
from tf_synflow.policy.added_filters import added_filters

# The largest share of a layer's filters that may be removed, from arXiv 2009.11839.
MOST_OF_A_LAYER = 0.95


class _Form(NamedTuple):
    """How to score a filter by the scores of its weights.

    Attributes:
      weights: The criterion that scores the weights.
      total: Function from an array `(weights of a filter, filters)` to a score for each
        filter.
    """

    weights: Callable[[Problem], Scorer]
    total: Callable[[np.ndarray], np.ndarray]


def _sum(scores: np.ndarray) -> np.ndarray:
    return scores.sum(0)


FORMS = {
    "magnitude": _Form(
        CRITERIA["magnitude"], lambda scores: np.linalg.norm(scores, 2, 0)
    ),
    "loss_preservation": _Form(CRITERIA["loss_preservation"], _sum),
    "small_magnitude_loss_preservation": _Form(
        CRITERIA["small_magnitude_loss_preservation"], _sum
    ),
    # The absolute value is taken after the sum.
    "gradient_norm_preservation": _Form(
        gradient_norm_changes, lambda scores: np.abs(scores.sum(0))
    ),
    "grasp": _Form(CRITERIA["grasp"], _sum),
    # The sum of n draws from N(0, 1), divided by sqrt(n), is a draw from N(0, 1) too.
    "random": _Form(
        CRITERIA["random"], lambda scores: scores.sum(0) / len(scores) ** 0.5
    ),
}


class Filters:
    """The filters of a network that may be pruned.

    Attributes:
      sizes: Name of a kernel ("conv1/kernel") to its number of filters, for the kernels
        whose filters may be pruned, in the model's order. If `zero` is True, the
        kernels in `fixed` are included.
      added: Kernels whose filters are zeroed, because their channels are added to those
        of other filters. Empty unless `zero` is True.
      fixed: Kernels whose filters are counted though all of them stay. Empty unless
        `zero` is True.
    """

    def __init__(self, network: Network, names: Collection[str], zero: bool = False):
        """Finds the filters.

        Args:
          network: The network.
          names: The weights that may be pruned.
          zero: Whether all filters count, and filters that are added to those of other
            layers can be zeroed; see `added_filters`. Defaults to False.

        Raises:
          ValueError: No filter may be pruned.
        """
        channels = Channels(network, names, needed.rule_of)
        stay = channels.held | {
            group
            for number in (
                *network.outputs,
                *(c.inputs[0] for c in network.calls if needed.strided_1x1(c)),
            )
            for group in channels.signals[number]
        }
        bundles = {group: own for own in channels.bundles for group in own}
        makers: dict[tuple[int, ...], list[str]] = {}
        self._axes = channels.kernels
        # For each kernel, all groups that lose a channel with each of its filters.
        self._groups: dict[str, tuple[int, ...]] = {}
        for name, (_, out) in channels.kernels.items():
            for group in channels.axes[name][out]:
                makers.setdefault(bundles[group], []).append(name)
        for name, (_, out) in channels.kernels.items():
            group, *others = channels.axes[name][out]
            bundle = bundles[group]
            whole = all(channels.sizes[g] % channels.sizes[group] == 0 for g in bundle)
            alone = not others and len(makers[bundle]) == 1
            if alone and whole and stay.isdisjoint(bundle):
                self._groups[name] = bundle
        outputs = {g for n in network.outputs for g in channels.signals[n]}
        others = [
            name
            for name, (_, out) in channels.kernels.items()
            if zero and outputs.isdisjoint(channels.axes[name][out])
        ]
        self.added = (added_filters(network, names).keys() & others) - {*self._groups}
        self.fixed = {*others} - self.added - {*self._groups}
        if not self._groups and not self.added:
            raise ValueError(
                "the model has no filter that may be pruned: each is an output of the "
                "model, is combined with those of other layers (Add, Multiply ...), or "
                "is read by a strided 1x1 convolution or a layer that is excluded or "
                "not known"
            )
        self.sizes = {
            name: int(network.weights[name].shape[out])
            for name, (_, out) in channels.kernels.items()
            if name in self._groups or name in self.added or name in self.fixed
        }
        self._sizes = channels.sizes
        self._inputs = {n: channels.axes[n][i] for n, (i, _) in self._axes.items()}

    def standing(self, masks: Masks) -> Masks:
        """Name of a kernel to boolean vector: the filters that have a weight left."""
        return {name: self.by_filter(name, masks[name]).any(0) for name in self.sizes}

    def weight_masks(self, filters: Masks, masks: Masks) -> Masks:
        """The masks of the weights when only these filters are left.

        Args:
          filters: The filters that are left, in the form that `standing` returns.
          masks: The masks of the weights so far.
        """
        new = {name: mask.copy() for name, mask in masks.items()}
        left = {group: np.ones(size, bool) for group, size in self._sizes.items()}
        for name, flags in filters.items():
            for group in self._groups.get(name, ()):
                left[group] = more(flags, self._sizes[group])
        for name, (into, out) in self._axes.items():
            np.moveaxis(new[name], into, -1)[..., ~along(self._inputs[name], left)] = (
                False
            )
            if name in filters:
                np.moveaxis(new[name], out, -1)[..., ~filters[name]] = False
        return new

    def scorer(self, problem: Problem, criterion: str, masks: Masks) -> Scorer:
        """The function from masks of filters to scores of filters.

        Args:
          problem: The network.
          criterion: One of `FORMS`.
          masks: The masks of the weights to begin from.
        """
        form = FORMS[criterion]
        of_weights = form.weights(problem)

        def score(filters: Masks) -> Scores:
            weights = of_weights(self.weight_masks(filters, masks))
            scores = {
                name: form.total(self.by_filter(name, weights[name]))
                for name in self.sizes
            }
            return scores if criterion in DATA_FREE else over_total(scores)

        return score

    def by_filter(self, name: str, array: np.ndarray) -> np.ndarray:
        """The array as `(weights of a filter, filters)`."""
        _, out = self._axes[name]
        return np.moveaxis(array, out, -1).reshape(-1, array.shape[out])


def least(sizes: Mapping[str, int]) -> dict[str, int]:
    """The least number of filters that each layer keeps: 5 %, but at least one."""
    return {
        name: max(1, size - math.floor(MOST_OF_A_LAYER * size))
        for name, size in sizes.items()
    }


def never_less(scorer: Scorer, fewest: Mapping[str, int]) -> Scorer:
    """Makes the `fewest` highest scores of a layer infinite, so that they are kept."""

    def score(filters: Masks) -> Scores:
        scores = {name: own.astype("float64") for name, own in scorer(filters).items()}
        for name, own in scores.items():
            ranked = np.where(filters[name], own, -np.inf)
            own[np.argsort(-ranked, kind="stable")[: fewest[name]]] = np.inf
        return scores

    return score


def check_filter_reach(
    steps: Plan, standing: Masks, fewest: Mapping[str, int], why: str
) -> None:
    """Refuses a plan that ends with too few filters, or with more than there are.

    Args:
      steps: The plan that `masks.counts.plan` returned for filters.
      standing: Name to boolean vector, True for the filters that are left.
      fewest: Name to the least number of filters that is kept.
      why: Why so many filters are kept, for errors.

    Raises:
      ValueError: The plan cannot be carried out. The error gives the numbers.
    """
    ends = [
        (
            names,
            kept,
            sum(fewest[name] for name in names),
            sum(standing[name].size for name in names),
            sum(int(standing[name].sum()) for name in names),
        )
        for names, kept in steps[-1]
    ]
    # A ratio that an error names must work for every layer, not only for that at fault.
    highest = min(
        (highest_ratio(size, lowest) for *_, lowest, size, _ in ends if lowest > 1),
        default=math.inf,
    )
    least_ratio = max(lowest_ratio(size, now) for *_, size, now in ends)
    for names, kept, lowest, size, now in ends:
        what = "the network's layers" if len(names) > 1 else f"{names[0]!r}"
        if not now:
            way = ", or exclude what is empty" if len(ends) > 1 else ""
            raise ValueError(
                f"none of the {size} filters of {what} that may be pruned is left; "
                f"prune the original model{way}"
            )
        if kept < lowest:
            raise ValueError(
                f"that would keep {kept} of the {size} filters of {what} that may be "
                f"pruned, but {lowest} stay at least: {why}. The highest ratio is "
                f"{highest!r} (to six places)"
            )
        if kept > now:
            ask = f", or ask for a ratio of at least {least_ratio!r}"
            raise ValueError(
                f"that would keep {kept} of the {size} filters of {what} that may be "
                f"pruned, but it has only {now} left; prune the original model"
                + (ask if least_ratio < math.inf else "")
            )
