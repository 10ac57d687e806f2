"""Finds the compression ratio at which a criterion first empties a layer."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from tf_synflow.masks.counts import plan
from tf_synflow.masks.selection import emptied, iterate
from tf_synflow.masks.types import Masks


class Collapse(NamedTuple):
    """Where a criterion first empties a layer.

    Attributes:
      alpha: log10 of the compression ratio; None if no layer is emptied.
      layers: The weight tensors with no kept weight at this ratio.
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

    With one iteration, the model is scored once for all alphas. With several
    iterations, the model is pruned for each alpha separately, from the lowest alpha up.

    Args:
      model: A built Sequential or functional Keras model.
      policy: A `PruningPolicy`; its `on_collapse` should be "ignore".
      alphas: Rising numbers; `policy.masks` must allow each ratio 10**alpha.
      data: Data for the criteria that need it; see `PruningPolicy.score`. Defaults to
        None.
      progress: Wraps the alphas, as tqdm does.

    Raises:
      ValueError: `alphas` is empty; or see `policy.masks`.
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

    With one iteration, the model is scored once for all ratios.

    Args:
      model: A built Sequential or functional Keras model.
      policy: A `PruningPolicy`.
      alphas: log10 of the ratios.
      data: Data for the criteria that need it; see `PruningPolicy.score`. Defaults to
        None.

    Raises:
      ValueError: See `policy.masks`.
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
