"""At which compression ratio a criterion empties a layer: layer collapse.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467, section 3.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_synflow.masks import Masks, iterate, plan
from tf_synflow.policy import PruningPolicy
from tf_synflow.report import collapsed_layers


class Collapse(NamedTuple):
    """Where a criterion first empties a layer.

    Attributes:
      alpha: log10 of the compression ratio; None if it never does.
      layers: The weight tensors of which nothing is left there.
    """

    alpha: float | None
    layers: list[str]


def first_collapse(
    model: Any,
    policy: PruningPolicy,
    alphas: Sequence[float],
    data: Any = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Collapse:
    """The first alpha, log10 of the ratio, at which a layer is emptied.

    Single-shot, one scoring serves every alpha. Iterated, each alpha is pruned for by
    itself, from the lowest up.

    Args:
      model: A built Sequential or functional tf_keras model.
      policy: How to prune.
      alphas: Rising; what `policy.masks` allows, as 10**alpha.
      data: For criteria that need it.
      progress: Wraps the alphas, as tqdm does.
    """
    for alpha, masks in zip(
        progress(alphas), _pruned(model, policy, alphas, data), strict=True
    ):
        emptied = collapsed_layers(masks)
        if emptied:
            return Collapse(alpha, emptied)
    return Collapse(None, [])


def _pruned(
    model: Any, policy: PruningPolicy, alphas: Sequence[float], data: Any
) -> Iterable[Masks]:
    if policy.iterations > 1:
        for alpha in alphas:
            yield policy.masks(model, 10**alpha, data)
        return
    scores = policy.score(model, data)
    whole = {name: np.ones(score.shape, bool) for name, score in scores.items()}
    for alpha in alphas:
        steps = plan(whole, 10**alpha, 1, policy.schedule, policy.scope)
        yield iterate(lambda masks: scores, whole, steps)
