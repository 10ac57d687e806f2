"""SynFlow: the synaptic flow through each weight.

With R the flow of the linear twin, the score is S(w) = dR/d|w| * |w|. It is a sum over
all paths from input to output through w. Each path adds the product of the |weights|
along it. SynFlow needs no data. In every layer of a feed-forward network the scores add
up to R.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467, section 6.
"""

from collections.abc import Callable, Iterable

import numpy as np

from tf_synflow.criteria.problem import Problem
from tf_synflow.flow.linear_twin import aligned_copy, shared_tensor
from tf_synflow.flow.loop import (
    check_flow,
    network_twin,
    prune_by_flow,
    warn_of_no_flow,
)
from tf_synflow.masks.types import Masks, Plan, Scorer, Scores


class FlowScores(Scores):
    """Scores by weight name, and the exponent of the power of two that scales them.

    Attributes:
      log2_scale: The exponent: S = `score * 2**log2_scale`. If float64 can hold all
        values of S, the exponent is 0, and the scores are S itself.
    """

    log2_scale = 0


def synflow(problem: Problem) -> Scorer:
    """Scores by synaptic flow; see the module for the equation."""
    twin, weights = network_twin(
        problem.network,
        problem.weights,
        problem.exclude,
        problem.dtype,
        product=problem.attention == "product",
    )

    first = True

    def score(masks: Masks) -> FlowScores:
        nonlocal first
        kept = {n: aligned_copy(w.array * masks[n]) for n, w in weights.items()}
        flow, gradients = twin.gradients({n: shared_tensor(w) for n, w in kept.items()})
        check_flow(flow)
        if first and not float(flow.tensor):
            warn_of_no_flow(problem.network, masks)
        first = False
        pairs = zip(kept.items(), gradients, strict=True)
        scores = FlowScores((n, (g * w).astype("float64")) for (n, w), g in pairs)
        return _unscaled(scores, int(flow.exponent))

    return score


def synflow_loop(
    problem: Problem,
    masks: Masks,
    steps: Plan,
    progress: Callable[[Iterable], Iterable] = iter,
) -> Masks:
    """The masks that scoring and masking in turn give, but faster; see `flow.loop`."""
    return prune_by_flow(
        problem.network,
        problem.weights,
        masks,
        steps,
        exclude=problem.exclude,
        dtype=problem.dtype,
        progress=progress,
        product=problem.attention == "product",
    )


def _unscaled(scores: FlowScores, exponent: int) -> FlowScores:
    """The scores with exponent 0 if float64 can hold all of them, else unchanged."""
    tops = [array.max() for array in scores.values()]
    lows = [array[array > 0].min(initial=np.inf) for array in scores.values()]
    limits = np.finfo("float64")
    highest = np.frexp(max(tops))[1] + exponent
    lowest = np.frexp(min(lows))[1] + exponent
    if highest > limits.maxexp or (np.isfinite(min(lows)) and lowest <= limits.minexp):
        scores.log2_scale = exponent
        return scores
    return FlowScores({n: np.ldexp(array, exponent) for n, array in scores.items()})
