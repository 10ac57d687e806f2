"""Filters whose channels are added to those of other layers: finds and zeroes them.

At the end of a residual block several layers add to the same channels. So pruning one
of these layers cannot take a channel out of the network. But the layer can add 0 to the
channel:

    Conv2D "conv2" -> BatchNormalization "bn2" -> Add <- the shortcut

Filter i of "conv2" adds nothing once `conv2/kernel[..., i]`, `bn2/gamma[i]` and
`bn2/beta[i]` are 0. All widths stay as they are, and so do the multiply-adds.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839 (the authors' program prunes ResNets in this way).
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from tf_synflow import frameworks
from tf_synflow.network import Call, Network

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D")


def added_filters(
    network: Network, names: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """The convolutions whose result goes into an Add and nowhere else.

    A BatchNormalization may stand between the convolution and the Add.

    Args:
      network: The network.
      names: The weights that may be pruned.

    Returns:
      Name of a kernel to the names of the weights in which a filter's part must be 0,
      so that the filter adds nothing: the kernel itself, its bias, and the scale and
      offset of the BatchNormalization.
    """
    readers: dict[int, list[Call]] = {}
    for call in network.calls:
        for number in call.inputs:
            readers.setdefault(number, []).append(call)
    layers = [id(call.layer) for call in network.calls]

    def follower(call: Call) -> Call | None:
        """The only reader of a call's result, if its layer is called once, or None."""
        (number, *more), read = call.outputs, readers.get(call.outputs[0], [])
        once = layers.count(id(call.layer)) == 1
        if more or not once or number in network.outputs or len(read) != 1:
            return None
        return read[0]

    found = {}
    for call in network.calls:
        name = f"{call.name}/kernel"
        if name not in names or not _is_linear_convolution(call):
            continue
        zeroed, after = [name, f"{call.name}/bias"], follower(call)
        if after is not None and after.kind == "BatchNormalization":
            zeroed += [f"{after.name}/gamma", f"{after.name}/beta"]
            after = follower(after)
        if after is not None and after.kind == "Add":
            found[name] = tuple(w for w in zeroed if w in network.weights)
    return found


def _is_linear_convolution(call: Call) -> bool:
    activation = getattr(call.layer, "activation", None)
    name = getattr(activation, "__name__", None)
    last = getattr(call.layer, "data_format", None) == "channels_last"
    return call.kind in _CONVOLUTIONS and last and name in (None, "linear")


def hold_zero(model: Any, kept: Mapping[str, np.ndarray]) -> None:
    """Zeroes added filters of a model, now and in training.

    The constraints that hold the zeros belong to the model's variables. A copy, or a
    model that is loaded from a file, has no such constraints until this function is
    called again.

    Args:
      model: The model; it is changed.
      kept: Name of a kernel to boolean vector, False for the filters to zero.
    """
    network = frameworks.read(model)
    adapter = frameworks.adapter_of(model)
    added = added_filters(network, kept.keys())
    with adapter.scope(model):
        for name, flags in kept.items():
            for weight in () if flags.all() else added[name]:
                adapter.hold_zero(network.weights[weight], flags)


def kept_filters(mask: np.ndarray) -> np.ndarray:
    """Which filters of a convolution have at least one weight left."""
    return mask.reshape(-1, mask.shape[-1]).any(0)
