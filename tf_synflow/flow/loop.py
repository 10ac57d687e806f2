"""TODO."""

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from tf_synflow.channels.groups import Channels
from tf_synflow.criteria.problem import Problem
from tf_synflow.criteria.synflow import _warn_of_no_flow
from tf_synflow.flow import linear_parts
from tf_synflow.flow.linear_twin import LinearTwin, Magnitudes, aligned_copy, magnitudes
from tf_synflow.flow.scaling import Signal
from tf_synflow.flow.survivors import Survivors
from tf_synflow.masks.types import Masks, Plan, Scores
from tf_synflow.network import named_weights


class FlowScores(Scores):
    """Scores by weight name, with the power of two that they are to be multiplied by.

    Attributes:
      log2_scale: S = `score * 2**log2_scale`. It is 0, and the scores are S itself,
        wherever float64 can hold all of them.
    """

    log2_scale = 0


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
