"""Which weights stay: the highest scores, step by step."""

import copy
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tf_synflow.masks.types import Masks, Plan, Scorer, Scores


def emptied(masks: Mapping[str, np.ndarray]) -> list[str]:
    """Names of the weight tensors of which nothing is kept."""
    return [name for name, mask in masks.items() if not mask.any()]


def keep_highest(scores: np.ndarray, mask: np.ndarray, kept: int) -> np.ndarray:
    """The mask of the `kept` highest scores among the survivors.

    Args:
      scores: Float array of shape `(N,)`, finite.
      mask: Boolean array of shape `(N,)`, True for the survivors; pruned weights stay
        pruned.
      kept: How many to keep, at most the number of survivors.

    Returns:
      A new mask with exactly `kept` True. Of equal scores, those at earlier positions
      are kept.
    """
    survivors = np.flatnonzero(mask)
    ranked = scores[survivors]
    removed = survivors.size - kept
    if removed <= 0:
        return mask.copy()
    threshold = np.partition(ranked, removed - 1)[removed - 1]
    below = ranked < threshold
    ties = np.flatnonzero(ranked == threshold)
    # Of the scores at the threshold, the later ones are removed.
    below[ties[ties.size - (removed - np.count_nonzero(below)) :]] = True
    new = mask.copy()
    new[survivors[below]] = False
    return new


def flat(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """The arrays one after the other, each in C order."""
    return np.concatenate([np.ravel(array) for array in arrays.values()])


def unflat(vector: np.ndarray, like: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Cuts a vector into arrays with the names and shapes of `like`."""
    ends = np.cumsum([array.size for array in like.values()])[:-1]
    parts = np.split(vector, ends)
    return {n: p.reshape(like[n].shape) for n, p in zip(like, parts, strict=True)}


def iterate(
    scorer: Scorer,
    masks: Masks,
    steps: Plan,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Masks:
    """Scores and removes, step by step (Algorithm 1 of arXiv 2006.05467).

    Args:
      scorer: Function from masks to the finite scores of the weights under these masks.
        It is called once for each step, with the masks so far.
      masks: Name to mask to begin from. Pruned weights stay pruned.
      steps: The plan that `masks.counts.plan` returned.
      progress: Wraps the steps, as tqdm does.

    Returns:
      New masks, each group of them with exactly as many True as the last step says.
    """
    for step in progress(steps):
        scores, new = scorer(masks), {}
        for names, kept in step:
            own = {name: masks[name] for name in names}
            ranked = flat({name: scores[name] for name in names})
            new.update(unflat(keep_highest(ranked, flat(own), kept), own))
        masks = new
    return masks


def inverted(scorer: Scorer) -> Scorer:
    """A scorer that negates the scores, so that the highest scores are removed."""

    def score(masks: Masks) -> Scores:
        scores = copy.copy(scorer(masks))
        scores.update({name: -score for name, score in scores.items()})
        return scores

    return score
