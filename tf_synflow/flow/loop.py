"""SynFlow's loop: score, remove the lowest scores, and repeat (Algorithm 1).

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467, section 6.
"""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping

import numpy as np

from tf_synflow.channels import rules
from tf_synflow.channels.groups import Channels
from tf_synflow.checks import LayerCollapseWarning
from tf_synflow.flow import linear_parts
from tf_synflow.flow.linear_twin import (
    LinearTwin,
    Magnitudes,
    aligned_copy,
    leading_to_outputs,
    magnitudes,
)
from tf_synflow.flow.scaling import Signal
from tf_synflow.flow.survivors import Survivors
from tf_synflow.masks.types import Masks, Plan
from tf_synflow.network import Network


def network_twin(
    network: Network,
    weights: Mapping[str, np.ndarray],
    exclude: Collection[str] = (),
    dtype: str = "float64",
    traced: bool = False,
    product: bool = False,
) -> tuple[LinearTwin, dict[str, Magnitudes]]:
    """The twin of a network, and the |w| that it is differentiated with respect to.

    Args:
      network: The network.
      weights: Name to value of the weights to differentiate by.
      exclude: See `LinearTwin`. Defaults to none.
      dtype: The type to compute in, "float64" or "float32". Defaults to "float64".
      traced: See `LinearTwin`. Defaults to False.
      product: See `linear_parts.rule_of`. Defaults to False.
    """
    sizes = _magnitudes(network, weights, dtype)
    twin = LinearTwin(network, sizes, exclude=exclude, traced=traced, product=product)
    return twin, sizes


def prune_by_flow(
    network: Network,
    weights: Mapping[str, np.ndarray],
    masks: Masks,
    steps: Plan,
    *,
    exclude: Collection[str] = (),
    dtype: str = "float64",
    progress: Callable[[Iterable], Iterable] = iter,
    removed: list[float] | None = None,
    product: bool = False,
) -> Masks:
    """Scores and removes weights, as `masks.selection.iterate` does, but faster.

    The twin is traced once, for any number of channels. Dead channels are taken out of
    the arrays as pruning goes on. Only the lowest scores are collected and ranked.

    Args:
      network: The network.
      weights: Name to value of the weights that may be pruned.
      masks: Name to mask to begin from.
      steps: The plan that `masks.counts.plan` returned.
      exclude: See `LinearTwin`. Defaults to none.
      dtype: The type to compute in, "float64" or "float32". Defaults to "float64".
      progress: Wraps the steps, as tqdm does.
      removed: A list, to which each step appends the sum of the scores that it removes,
        divided by R. This is at most the number of layers that a path crosses. Defaults
        to None: nothing is appended.
      product: See `linear_parts.rule_of`. Defaults to False.

    Returns:
      New masks.
    """
    channels = Channels(network, set(weights), rules.rule_of)
    sizes = _magnitudes(network, weights, dtype)
    for name, weight in sizes.items():
        weight.array[~masks[name]] = 0
    carried = {
        name: aligned_copy(np.abs(network.weights[name].numpy().astype(dtype)))
        for name in channels.axes
        if name not in sizes
    }
    twin = LinearTwin(
        network,
        sizes,
        carried,
        channels.axes,
        exclude,
        traced=True,
        product=product,
    )
    survivors = Survivors(channels, sizes, carried, masks)
    del sizes, carried
    for number, step in enumerate(progress(steps)):
        flow, gradients = twin.gradients(survivors.tensors)
        check_flow(flow)
        if number == 0 and not float(flow.tensor):
            warn_of_no_flow(network, masks)
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
    """The sum of all scores, divided by the power of two of the flow."""
    arrays = ((survivors.arrays[name], g) for name, g in gradients.items())
    return sum(float(np.vdot(w, g)) for w, g in arrays)


def _magnitudes(
    network: Network, weights: Mapping[str, np.ndarray], dtype: str
) -> dict[str, Magnitudes]:
    linear = {
        f"{call.name}/{short}"
        for call in network.calls
        for short in linear_parts.linear_weights(call)
    }
    return {
        name: magnitudes(weight, dtype, name in linear)
        for name, weight in weights.items()
    }


def check_flow(flow: Signal) -> None:
    """Refuses a flow that is not finite.

    Raises:
      ValueError: The flow is NaN or infinite. Only a variance of BatchNormalization or
        a rule of the user's own can cause this.
    """
    if not np.isfinite(float(flow.tensor)):
        raise ValueError(
            f"the synaptic flow is {float(flow.tensor)}: a BatchNormalization holds "
            "NaN or a negative variance, or a rule given to register_linear_part "
            "returns something that is not finite and >= 0"
        )


def warn_of_no_flow(network: Network, masks: Mapping[str, np.ndarray]) -> None:
    """Warns that the flow is 0 before pruning; names weights that may be at fault."""
    variables = leading_to_outputs(network).weights
    empty = [name for name in masks if name in variables and not masks[name].any()]
    zero = [
        name
        for name, variable in variables.items()
        # Other weights, such as biases, do not multiply the flow.
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
        LayerCollapseWarning,
        stacklevel=2,
    )
