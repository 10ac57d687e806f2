"""SynFlow: the synaptic flow through each weight.

With R the flow of the linear twin, S(w) = dR/d|w| * |w|: the sum over all paths from
input to output through w of the product of the |weights| along the path. It needs no
data. In every layer of a feed-forward network the scores add up to R.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467, section 6.
"""

import warnings

import numpy as np

from tf_synflow.criteria.problem import Problem
from tf_synflow.flow.linear_twin import aligned_copy, leading_to_outputs, shared_tensor
from tf_synflow.flow.loop import FlowScores, _check, network_twin
from tf_synflow.masks.types import Masks, Scorer
from tf_synflow.network import named_weights


def synflow(problem: Problem) -> Scorer:
    """Scores by synaptic flow; see the module for the equation."""
    twin, weights = network_twin(problem)
    first = True

    def score(masks: Masks) -> FlowScores:
        nonlocal first
        kept = {n: aligned_copy(w.array * masks[n]) for n, w in weights.items()}
        flow, gradients = twin.gradients({n: shared_tensor(w) for n, w in kept.items()})
        _check(flow)
        if first and not float(flow.tensor):
            _warn_of_no_flow(problem, masks)
        first = False
        pairs = zip(kept.items(), gradients, strict=True)
        scores = FlowScores((n, (g * w).astype("float64")) for (n, w), g in pairs)
        return _unscaled(scores, int(flow.exponent))

    return score


def _warn_of_no_flow(problem: Problem, masks: Masks) -> None:
    """Says that there is no flow to begin with, and which weights may be at fault."""
    variables = named_weights(leading_to_outputs(problem.graph))
    empty = [name for name in masks if name in variables and not masks[name].any()]
    zero = [
        name
        for name, variable in variables.items()
        # Others, such as biases, do not multiply the flow.
        if name.endswith(("kernel", "gamma")) and not variable.numpy().any()
    ]
    if empty:
        why = f"Nothing is kept of {', '.join(empty)}: prune the original model"
    elif zero:
        why = (
            f"The values of {', '.join(zero)} are all 0: give them other values before "
            "you prune, random ones for example, and put the zeros back afterwards"
        )
    else:
        why = "Look for units whose weights are all 0 or pruned"
    warnings.warn(
        "the synaptic flow is 0 before SynFlow removes anything: no path from input to "
        "output has kept weights that are all other than 0. So all scores are 0, and "
        f"weights are removed by their position only, the last ones first. {why}",
        stacklevel=2,
    )


def _unscaled(scores: FlowScores, exponent: int) -> FlowScores:
    """The scores themselves if float64 holds every one of them, else as they are."""
    tops = [array.max() for array in scores.values()]
    lows = [array[array > 0].min(initial=np.inf) for array in scores.values()]
    limits = np.finfo("float64")
    highest = np.frexp(max(tops))[1] + exponent
    lowest = np.frexp(min(lows))[1] + exponent
    if highest > limits.maxexp or (np.isfinite(min(lows)) and lowest <= limits.minexp):
        scores.log2_scale = exponent
        return scores
    return FlowScores({n: np.ldexp(array, exponent) for n, array in scores.items()})
