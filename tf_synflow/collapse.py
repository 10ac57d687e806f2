"""Layer collapse: a layer of which nothing is left, while others still stand.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467, section 3.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tf_synflow.criteria import Problem
from tf_synflow.masks import Masks, iterate, plan
from tf_synflow.reach import on_paths

ACTIONS = ("warn", "raise", "ignore")


class LayerCollapseWarning(UserWarning):
    """A layer has lost all of its prunable weights."""


class LayerCollapseError(ValueError):
    """The same, where `on_collapse="raise"` was asked for."""


def emptied(masks: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the weight tensors of which nothing is kept."""
    return [name for name, mask in masks.items() if not mask.any()]


def notice(
    problem: Problem, before: Masks, after: Masks, on_collapse: str, advice: str
) -> None:
    """Warns or raises if pruning has emptied a layer.

    Args:
      problem: The network.
      before: Name to mask before pruning; what was empty then is not mentioned again.
      after: Name to mask after it.
      on_collapse: One of `ACTIONS`.
      advice: What to do where input and output are not connected any more.

    Raises:
      LayerCollapseError: A layer was emptied, and `on_collapse` is "raise".
    """
    names = [name for name in emptied(after) if before[name].any()]
    if not names or on_collapse == "ignore":
        return
    zero = [name for name in names if not problem.weights[name][before[name]].any()]
    if zero:
        advice = (
            f"the values of {', '.join(zero)} were all 0 before pruning, so that no "
            "path led through there then either: give them other values before you "
            f"prune; otherwise {advice}"
        )
    try:
        connected = on_paths(problem.graph, after, problem.exclude)[1]
    except ValueError:
        what = "whether input and output are still connected is not known"
    else:
        end = "output" if len(problem.graph.outputs) == 1 else "one of the outputs"
        what = (
            "side branches: input and output are still connected through other layers"
            if connected
            else f"no path is left from input to {end}, so the network cannot learn; "
            + advice
        )
    message = f"pruning has left nothing of {', '.join(names)}: {what}"
    if on_collapse == "raise":
        raise LayerCollapseError(message)
    warnings.warn(message, LayerCollapseWarning, stacklevel=4)


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
    policy: Any,
    alphas: Sequence[float],
    data: Any = None,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Collapse:
    """The first alpha, log10 of the ratio, at which a layer is emptied.

    Single-shot, one scoring serves every alpha. Iterated, each alpha is pruned for by
    itself, from the lowest up.

    Args:
      model: A built Sequential or functional tf_keras model.
      policy: A `PruningPolicy`; what it does on collapse should be "ignore".
      alphas: Rising; what `policy.masks` allows, as 10**alpha.
      data: For criteria that need it.
      progress: Wraps the alphas, as tqdm does.

    Raises:
      ValueError: There is no alpha, or as `policy.masks`.
    """
    if not alphas:
        raise ValueError("there is no alpha to try")
    for alpha, masks in zip(
        progress(alphas), masks_at(model, policy, alphas, data), strict=True
    ):
        if emptied(masks):
            return Collapse(alpha, emptied(masks))
    return Collapse(None, [])


def masks_at(
    model: Any, policy: Any, alphas: Sequence[float], data: Any = None
) -> Iterable[Masks]:
    """The masks at several compression ratios, one after the other.

    Single-shot, one scoring serves every ratio.

    Args:
      model: A built Sequential or functional tf_keras model.
      policy: A `PruningPolicy`.
      alphas: log10 of the ratios.
      data: For criteria that need it.

    Raises:
      ValueError: As `policy.masks`.
    """
    masks = policy.check(model, 10 ** max(alphas), data)
    if policy.iterations > 1 or policy.granularity == "filter":
        for alpha in alphas:
            yield policy.masks(model, 10**alpha, data)
        return
    scores = policy.score(model, data)
    for alpha in alphas:
        steps = plan(masks, 10**alpha, 1, policy.schedule, policy.scope)
        yield iterate(lambda masks: scores, masks, steps)
