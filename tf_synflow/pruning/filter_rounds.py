"""Prunes filters in rounds: a round trains, removes some filters, and shrinks.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839.
"""

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from tf_synflow import frameworks
from tf_synflow.channels.plan import ChannelPlan
from tf_synflow.channels.shrinking import smaller_model
from tf_synflow.checks import check_count
from tf_synflow.masks.counts import pruned_fraction
from tf_synflow.masks.types import Masks
from tf_synflow.network import Network
from tf_synflow.policy.added_filters import hold_zero, kept_filters
from tf_synflow.policy.by_filter import FilterTask
from tf_synflow.policy.pruning_policy import PruningPolicy


def prune_filters(
    model: Any,
    ratio: float,
    train: Callable[[Any], Any],
    rounds: int = 1,
    *,
    policy: PruningPolicy | None = None,
    data: Any = None,
    zero_added: bool = False,
    whole_percents: bool = False,
) -> Any:
    """Prunes whole filters in rounds, and returns a smaller network without masks.

    R rounds together remove the share p of the filters. Round k trains the network as
    it is then, and removes the share `p_k = p / (k p + R (1 - p))` of its filters. All
    other weights keep their trained values.

    ```python
    def train(network):
        network.compile("sgd", loss)
        network.fit(dataset, epochs=1)

    policy = tf_synflow.PruningPolicy("loss_preservation", granularity="filter")
    small = tf_synflow.prune_filters(
        model, 0.75, train, rounds=5, policy=policy, data=(x, y)
    )
    ```

    Args:
      model: A built Sequential or functional Keras model, not pruned. It is not
        changed.
      ratio: As for `PruningPolicy.masks`, but it counts filters. `>= 1`: filters that
        may be pruned over filters kept. `0 <= ratio < 1`: the fraction of the filters
        removed.
      train: A function that trains a model in place. It is called once for each round.
        Its argument is a plain, uncompiled model.
      rounds: R, at least 1. Defaults to 1.
      policy: How to score; its granularity must be "filter". Its `iterations` are
        ignored, because each round scores once. Defaults to the criterion "magnitude"
        for filters.
      data: Data for the criteria that need it; see `PruningPolicy.score`. Defaults to
        None.
      zero_added: Whether to count filters as the paper does for ResNets. All filters of
        convolutions count. Those of the first convolution count too, but all of them
        stay. Filters whose channels are added to those of other layers are not taken
        out. They are zeroed, with the scale and offset of their BatchNormalization, and
        stay zero in training; this saves no computation. A layer keeps at least one
        filter; the limit of 95 % does not apply. Defaults to False.
      whole_percents: Whether the share of filters that is left after each round is
        rounded down to a whole percentage, as in the authors' program for ResNets. For
        example, removing 60 % in five rounds then leaves 38 %, not 40 %. Defaults to
        False.

    Returns:
      A new, uncompiled model with fewer filters and the trained weights. With
      `zero_added`, its variables have constraints that keep zeroed filters at zero. A
      copy of the model, or a file, has the zeros but not the constraints.

    Raises:
      TypeError: See `PruningPolicy.masks`; or `train` is no function, or `rounds` no
        whole number.
      ValueError: See `PruningPolicy.masks`; or `rounds` is below 1, `model` is pruned
        already, or the policy does not prune filters or does not rank them all
        together.
    """
    counting = Counting(zero_added, whole_percents)
    return in_rounds(model, ratio, train, rounds, policy, data, counting)[0]


class Counting(NamedTuple):
    """Which filters count, and how their shares are rounded; see `prune_filters`."""

    zero_added: bool = False
    whole_percents: bool = False

    def task(self, policy: PruningPolicy, network: Network, data: Any) -> FilterTask:
        """How the filters of a network are pruned."""
        return FilterTask(policy.problem(network, data), policy, self.zero_added)

    def kept_after(
        self, number: int, rounds: int, removed: Fraction, total: int
    ) -> int:
        """How many filters are left after a round.

        Args:
          number: Number of the round, counted from 1.
          rounds: R.
          removed: p, the share that all rounds together remove.
          total: The number of filters.
        """
        shares = [
            removed / (k * removed + rounds * (1 - removed))
            for k in range(1, number + 1)
        ]
        left = Fraction(1)
        for share in shares:
            left *= 1 - share
            if self.whole_percents:
                left = Fraction(math.floor(100 * left), 100)
        return total - math.floor((1 - left) * total)


def in_rounds(
    model: Any,
    ratio: float,
    train: Callable[[Any], Any],
    rounds: int,
    policy: PruningPolicy | None,
    data: Any,
    counting: Counting = Counting(),  # noqa: B008 (it cannot be changed)
) -> tuple[Any, Masks]:
    """What `prune_filters` returns, and the masks of `model` for the same pruning."""
    policy = policy or PruningPolicy("magnitude", granularity="filter")
    _check(train, rounds, policy)
    removed = pruned_fraction(ratio)
    whole = frameworks.read(model)
    if whole.masks:
        raise ValueError(
            f"model {model.name!r} is pruned by weights already; give the model as it "
            "was before, or strip(shrink(model)) to go on from its alive channels"
        )
    task = counting.task(policy, whole, data)
    task.check(ratio)
    fewest, total = task.fewest, sum(task.filters.sizes.values())
    small, stages = frameworks.stripped(whole), []
    masks: Masks = {}
    for number in range(1, rounds + 1):
        train(small)
        again = dataclasses.replace(policy, seed=policy.seed + number)  # for "random"
        task = counting.task(again, frameworks.read(small), data)
        filters, every = task.filters, task.start
        zeroed = {n: kept_filters(masks[n]) for n in filters.added if masks}
        task.start = filters.weight_masks(zeroed, every)
        kept = counting.kept_after(number, rounds, removed, total)
        left = task.left([[(list(filters.sizes), kept)]], fewest)
        masks = filters.weight_masks(left, task.start)
        # A channel that several layers add to stays, even if some of them add nothing.
        cut = {n: flags for n, flags in left.items() if n not in filters.added}
        network = dataclasses.replace(
            task.problem.network, masks=filters.weight_masks(cut, every)
        )
        plan = ChannelPlan(network)
        stages.append((masks, plan))
        small = frameworks.stripped(frameworks.read(smaller_model(plan)))
        hold_zero(small, {n: kept_filters(masks[n]) for n in filters.added})
    for _, plan in reversed(stages[:-1]):
        masks = plan.whole_masks(masks)
    return small, masks


def _check(train: Any, rounds: Any, policy: Any) -> None:
    if not callable(train):
        raise TypeError(f"train must be a function of a model, got {train!r}")
    check_count("rounds", rounds)
    if not isinstance(policy, PruningPolicy):
        raise TypeError(f"policy must be a tf_synflow.PruningPolicy, got {policy!r}")
    if policy.granularity != "filter" or policy.scope != "global":
        raise ValueError(
            'prune_filters ranks all filters together: it wants granularity="filter" '
            f'and scope="global", got {policy.granularity!r} and {policy.scope!r}'
        )
