"""Filters pruned in rounds: train a little, remove a share, shrink, again.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839.
"""

import dataclasses
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

from tf_synflow import frameworks
from tf_synflow.channels.plan import ChannelPlan
from tf_synflow.channels.shrinking import smaller_model
from tf_synflow.checks import check_count
from tf_synflow.masks.counts import pruned_fraction
from tf_synflow.masks.types import Masks
from tf_synflow.policy.pruning_policy import PruningPolicy


def prune_filters(
    model: Any,
    ratio: float,
    train: Callable[[Any], Any],
    rounds: int = 1,
    *,
    policy: PruningPolicy | None = None,
    data: Any = None,
) -> Any:
    """Prunes whole filters in rounds, and gives a smaller network without masks.

    Of R rounds that remove the share p in all, round k trains the network that is left,
    and removes `p_k = p / (k p + R (1 - p))` of the filters that it has. Weights go on
    from where training has brought them.

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
      ratio: As for `PruningPolicy.masks`, but of filters: `>= 1`, those that may be
        pruned over those kept; `0 <= ratio < 1`, the fraction removed.
      train: Trains the model that it is given, in place: a plain, uncompiled one. It is
        called once for each round.
      rounds: R, at least 1. Defaults to 1.
      policy: How to score; its granularity is "filter". Its `iterations` do not count,
        for each round scores once. Defaults to filters by "magnitude".
      data: For criteria that need it. Defaults to None.

    Returns:
      A new, uncompiled model with fewer filters, trained so far.

    Raises:
      TypeError: See `PruningPolicy.masks`; or `train` is no function, or `rounds` no
        whole number.
      ValueError: See `PruningPolicy.masks`; `rounds` is below 1, `model` is pruned
        already, or the policy is not one of filters.
    """
    return in_rounds(model, ratio, train, rounds, policy, data)[0]


def in_rounds(
    model: Any,
    ratio: float,
    train: Callable[[Any], Any],
    rounds: int,
    policy: PruningPolicy | None,
    data: Any,
) -> tuple[Any, Masks]:
    """What `prune_filters` gives, and the masks of `model` that led there."""
    policy = policy or PruningPolicy("magnitude", granularity="filter")
    _check(train, rounds, policy)
    removed = pruned_fraction(ratio)
    whole = frameworks.read(model)
    if whole.masks:
        raise ValueError(
            f"model {model.name!r} is pruned by weights already; give the model as it "
            "was before, or strip(shrink(model)) to go on from its alive channels"
        )
    task = policy.task(whole, data)
    task.check(ratio)
    fewest, total = task.fewest, sum(task.filters.sizes.values())
    small, stages = frameworks.stripped(whole), []
    for number in range(1, rounds + 1):
        train(small)
        again = dataclasses.replace(policy, seed=policy.seed + number)  # of "random"
        task = again.prepare(small, data)
        kept = _kept_after(number, rounds, removed, total)
        masks = task.remove([[(list(task.filters.sizes), kept)]], fewest)
        network = task.problem.network
        plan = ChannelPlan(dataclasses.replace(network, masks=masks))
        stages.append((masks, plan))
        small = frameworks.stripped(frameworks.read(smaller_model(plan)))
    masks = stages[-1][0]
    for _, plan in reversed(stages[:-1]):
        masks = plan.whole_masks(masks)
    return small, masks


def _kept_after(number: int, rounds: int, removed: Fraction, total: int) -> int:
    """How many filters are left: what is left of the shares p_1 ... p_number."""
    whole = rounds * (1 - removed)
    return total - math.floor((1 - whole / (number * removed + whole)) * total)


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
