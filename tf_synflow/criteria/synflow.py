"""SynFlow: the synaptic flow through each weight.

With R the flow of the linear twin, S(w) = dR/d|w| * |w|: the sum over all paths from
input to output through w of the product of the |weights| along the path. It needs no
data. In every layer of a feed-forward network the scores add up to R.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467, section 6.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tf_synflow import linear_parts
from tf_synflow.channels import Channels
from tf_synflow.criteria.problem import Problem
from tf_synflow.graph import named_weights
from tf_synflow.linear_twin import (
    LinearTwin,
    Magnitudes,
    aligned_copy,
    leading_to_outputs,
    magnitudes,
    shared_tensor,
)
from tf_synflow.masks import Masks, Plan, Scorer, Scores
from tf_synflow.scaling import Signal
from tf_synflow.survivors import Survivors


class FlowScores(Scores):
    """Scores by weight name, with the power of two that they are to be multiplied by.

    Attributes:
      log2_scale: S = `score * 2**log2_scale`. It is 0, and the scores are S itself,
        wherever float64 can hold all of them.
    """

    log2_scale = 0


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


def network_twin(problem: Problem) -> tuple[LinearTwin, dict[str, Magnitudes]]:
    """The twin of the whole network, and the weights to give it."""
    weights = _magnitudes(problem)
    return LinearTwin(problem.graph, weights, exclude=problem.exclude), weights


def prune_by_flow(
    problem: Problem,
    masks: Masks,
    steps: Plan,
    progress: Callable[[Iterable], Iterable] = iter,
    removed: list[float] | None = None,
) -> Masks:
    """Scores and removes, step by step: `masks.iterate(synflow(problem), ...)`, fast.

    The twin is traced once, for channels of any number; dead channels are taken out of
    the network as it shrinks; and of the scores only the lowest are ever looked at.

    Args:
      problem: The network.
      masks: Name to mask to begin from.
      steps: What `masks.plan` gave.
      progress: Wraps the steps, as tqdm does.
      removed: If given, the flow of what each step removes is appended: the sum of its
        scores over R, which is at most the number of layers that a path crosses.

    Returns:
      New masks.
    """
    graph = problem.graph
    channels = Channels(graph, set(problem.weights))
    weights = _magnitudes(problem)
    for name, weight in weights.items():
        weight.array[~masks[name]] = 0
    dtype = next(iter(weights.values())).array.dtype
    variables = named_weights(graph)
    carried = {
        name: aligned_copy(np.abs(variables[name].numpy().astype(dtype)))
        for name in channels.axes
        if name not in weights
    }
    twin = LinearTwin(graph, weights, carried, channels.axes, problem.exclude)
    survivors = Survivors(channels, weights, carried, masks)
    del weights, carried, variables
    for number, step in enumerate(progress(steps)):
        flow, gradients = twin.gradients(survivors.tensors)
        _check(flow)
        if number == 0 and not float(flow.tensor):
            _warn_of_no_flow(problem, masks)
        by_name = dict(zip(masks, gradients, strict=True))
        before = None if removed is None else _total(survivors, by_name)
        for names, kept in step:
            survivors.remove(names, by_name, kept)
        if before is not None:
            lost, whole = before - _total(survivors, by_name), float(flow.tensor)
            removed.append(lost / whole if whole else 0.0)
        del gradients, by_name  # make room before the weights are copied
        survivors.cut_if_stale()
    return survivors.masks()


def _total(survivors: Survivors, gradients: Mapping[str, np.ndarray]) -> float:
    """The sum of all scores, in units of the flow's own power of two."""
    arrays = ((survivors.arrays[name], g) for name, g in gradients.items())
    return sum(float(np.vdot(w, g)) for w, g in arrays)


def _magnitudes(problem: Problem) -> dict[str, Magnitudes]:
    linear = {
        call.name
        for call in problem.graph.calls
        if linear_parts.find(call.layer) in linear_parts.LINEAR_IN_KERNEL
    }
    return {
        name: magnitudes(weight, problem.dtype, name.rpartition("/")[0] in linear)
        for name, weight in problem.weights.items()
    }


def _check(flow: Signal) -> None:
    """Only a rule of the user's own can bring NaN or infinity in."""
    if not np.isfinite(float(flow.tensor)):
        raise ValueError(
            f"the synaptic flow is {float(flow.tensor)}: a BatchNormalization holds "
            "NaN or a negative variance, or a rule given to register_linear_part "
            "returns something that is not finite and >= 0"
        )


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
