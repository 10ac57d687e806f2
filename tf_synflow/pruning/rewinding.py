"""Iterative pruning with rewinding: train, prune, restore the initial weights, repeat.

References:
  Frankle, Carbin. The lottery ticket hypothesis: finding sparse, trainable neural
  networks. ICLR 2019. arXiv 1803.03635, section 1.
"""

from collections.abc import Callable
from typing import Any

from tf_synflow import frameworks
from tf_synflow.checks import check_count
from tf_synflow.masks.counts import plan
from tf_synflow.masks.selection import iterate
from tf_synflow.masks.types import Masks, Scores
from tf_synflow.policy.pruning_policy import PruningPolicy
from tf_synflow.pruning.masking import masked


def prune_with_rewinding(
    model: Any,
    ratio: float,
    train: Callable[[Any], Any],
    levels: int,
    *,
    policy: PruningPolicy | None = None,
    data: Any = None,
) -> Any:
    """Prunes a network by its trained weights, and rewinds it to its initial weights.

    There are n levels. Level l trains the pruned network from its initial weights, and
    prunes it further to density (1/rho)^(l/n), or as the policy's schedule says. Then
    it sets all remaining weights, also those of BatchNormalization, to their initial
    values, bit for bit.

    ```python
    def train(network):
        network.compile("sgd", loss)
        network.fit(dataset, epochs=10, callbacks=[tf_synflow.PruningCallback()])

    ticket = tf_synflow.prune_with_rewinding(model, 10, train, levels=5)
    train(ticket)
    ```

    Args:
      model: A built Sequential or functional Keras model, pruned or not. It is not
        changed.
      ratio: See `PruningPolicy.masks`.
      train: A function that trains a model in place. It is called once for each level.
        Its argument is an uncompiled, pruned model, as `prune` returns.
      levels: n, at least 1.
      policy: How to score the trained network. Its `iterations` are ignored, because
        each level scores once. Defaults to `PruningPolicy("magnitude")`: iterative
        magnitude pruning.
      data: Data for the criteria that need it; see `PruningPolicy.score`. Defaults to
        None.

    Returns:
      A new, uncompiled, pruned model with the initial weights, ready to be trained.

    Raises:
      TypeError: See `PruningPolicy.masks`; or `train` is no function, or `levels` no
        whole number.
      ValueError: See `PruningPolicy.masks`; or `levels` is below 1, or the policy
        prunes filters.
    """
    if not callable(train):
        raise TypeError(f"train must be a function of a model, got {train!r}")
    check_count("levels", levels)
    policy = policy or PruningPolicy("magnitude")
    if not isinstance(policy, PruningPolicy):
        raise TypeError(f"policy must be a tf_synflow.PruningPolicy, got {policy!r}")
    if policy.granularity == "filter":
        raise ValueError(
            "rewinding is for weights; for filters there is prune_filters, which goes "
            "on from the trained weights"
        )
    network = frameworks.read(model)
    task = policy.task(network, data)
    task.check(ratio)

    def scores_once_trained(masks: Masks) -> Scores:
        level = masked(network, masks)
        train(level)
        return policy.score(level, data)

    steps = plan(task.start, ratio, levels, policy.schedule, policy.scope)
    return masked(network, iterate(scores_once_trained, task.start, steps))
