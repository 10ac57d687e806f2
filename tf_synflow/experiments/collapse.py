"""At which compression ratio a criterion first empties a layer."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tf_synflow.masks.counts import plan
from tf_synflow.masks.selection import emptied, iterate
from tf_synflow.masks.types import Masks


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
      model: A built Sequential or functional Keras model.
      policy: A `PruningPolicy`; what it does on collapse should be "ignore".
      alphas: Rising; what `policy.masks` allows, as 10**alpha.
      data: For criteria that need it.
      progress: Wraps the alphas, as tqdm does.

    Raises:
      ValueError: `alphas` is empty, or as for `policy.masks`.
    """
    if not alphas:
        raise ValueError("alphas is empty: give at least one to try")
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
      model: A built Sequential or functional Keras model.
      policy: A `PruningPolicy`.
      alphas: log10 of the ratios.
      data: For criteria that need it.

    Raises:
      ValueError: As `policy.masks`.
    """
    task = policy.prepare(model, data)
    task.check(10 ** max(alphas))
    if policy.iterations > 1 or policy.granularity == "filter":
        for alpha in alphas:
            yield task.masks(10**alpha)
        return
    scores = task.score()
    for alpha in alphas:
        steps = plan(task.start, 10**alpha, 1, policy.schedule, policy.scope)
        yield iterate(lambda masks: scores, task.start, steps)
