"""prune: score, mask and wrap in one call."""

from typing import Any

from tf_synflow import frameworks
from tf_synflow.policy.pruning_policy import PruningPolicy
from tf_synflow.pruning.masking import masked


def prune(
    model: Any,
    ratio: float,
    *,
    policy: PruningPolicy | None = None,
    data: Any = None,
    **settings: Any,
) -> Any:
    """Prunes a model, by default with SynFlow: before training and without data.

    ```python
    pruned = tf_synflow.prune(model, ratio=100)  # keeps 1 % of the weights
    pruned.compile(...)
    pruned.fit(dataset, callbacks=[tf_synflow.PruningCallback()])
    small = tf_synflow.strip(pruned)
    ```

    Args:
      model: A built Sequential or functional Keras model. It stays the same, bit for
        bit. If it is pruned already, pruning goes on from its masks.
      ratio: `>= 1`: the compression ratio rho, prunable weights over kept weights.
        `0 <= ratio < 1`: the fraction of the prunable weights removed.
      policy: How to prune. Defaults to `PruningPolicy(**settings)`.
      data: Data for the criteria that need it; see `PruningPolicy.score`. Defaults to
        None.
      **settings: Arguments of `PruningPolicy` (`criterion=`, `iterations=`, `exclude=`
        ...), in place of a policy.

    Returns:
      A new, uncompiled model of the same Keras, whose weights are already sparse. In
      Keras 2, tfmot `PruneLowMagnitude` wrappers around its prunable layers hold the
      masks. In Keras 3, and for layers of Keras 2 that tfmot cannot wrap (attention,
      embeddings, recurrent layers), the layers stay plain, and constraints hold the
      masks. The new model shares nothing with `model`.

    Raises:
      TypeError: See `PruningPolicy.masks`; or both a policy and settings are given.
      ValueError: See `PruningPolicy` and `PruningPolicy.masks`.
    """
    if policy is None:
        policy = PruningPolicy(**settings)
    elif settings:
        raise TypeError(
            f"prune got a policy and {', '.join(settings)} as well; put "
            f"{'them' if len(settings) > 1 else 'it'} into the policy"
        )
    if not isinstance(policy, PruningPolicy):
        raise TypeError(f"policy must be a tf_synflow.PruningPolicy, got {policy!r}")
    network = frameworks.read(model)
    return masked(network, policy.task(network, data).masks(ratio))
