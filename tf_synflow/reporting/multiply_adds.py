"""How many multiply-adds a network takes for one input.

A multiply-add (MAC) multiplies one weight by one number and adds the product to a sum.
A convolution uses each weight once for each position of its output, a transposed
convolution once for each position of its input. A Dense layer uses each weight once for
each position in the axes before the last, a recurrent layer once for each time step.
Products with padded zeros count as well, as is usual.
"""

import math

from tf_synflow import frameworks
from tf_synflow.flow.parts.projecting import is_reversed
from tf_synflow.network import Call, Network, Shape
from tf_synflow.network.layer_weights import ATTENTION

_BY_OUTPUT = (
    *("Dense", "Conv1D", "Conv2D", "Conv3D", "DepthwiseConv1D", "DepthwiseConv2D"),
    *("SeparableConv1D", "SeparableConv2D"),
)

_BY_INPUT = (
    *("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"),
    *("SimpleRNN", "GRU", "LSTM"),
)

# Weights that are added, looked up, or applied to one channel each.
_FREE = (
    *("bias", "embeddings", "reverse_embeddings", "gamma", "beta", "moving_mean"),
    *("moving_variance", "mean", "variance", "alpha"),
)


def uses_of_weights(network: Network) -> tuple[dict[str, int | None], list[str]]:
    """How often each weight is used for one input.

    Args:
      network: The network.

    Returns:
      First, the name of each weight to the number of its uses in all calls of its
      layer. The multiply-adds of a weight are its size times this number. The number is
      None if the kind of the layer is not known, or if a size is not fixed. Second, the
      names of the layers with such weights.
    """
    positions: dict[str, int | None] = {}
    uncounted: list[str] = []
    for call in network.calls:
        for short, variable in call.weights.items():
            name = f"{call.name}/{short}"
            uses: int | None = 0
            own = short.rpartition("/")[2]
            free = own in _FREE and not _projects_back(call, short)
            if not free and len(variable.shape) > 1:
                uses = _uses(network, call, short)
                if uses is None and call.name not in uncounted:
                    uncounted.append(call.name)
            before = positions.get(name, 0)
            if uses is None or before is None:
                positions[name] = None
            else:
                positions[name] = before + uses
    return positions, uncounted


def _projects_back(call: Call, short: str) -> bool:
    """Whether a weight is the matrix by which a ReversibleEmbedding scores words."""
    if call.kind != "ReversibleEmbedding" or not is_reversed(call):
        return False
    tied = "reverse_embeddings" not in call.weights
    return short == ("embeddings" if tied else "reverse_embeddings")


def _uses(network: Network, call: Call, short: str) -> int | None:
    if call.kind == "EinsumDense":
        return _uses_in_product(call, network.shapes[call.inputs[0]])
    kind, inner = call.kind, call.layer
    if kind in ("TimeDistributed", "Bidirectional"):
        inner = inner.layer if kind == "TimeDistributed" else inner.forward_layer
        kind = frameworks.adapter_of(inner).kind_of(inner)
    if kind in ATTENTION and kind == call.kind:
        keys = short.startswith(("key/", "value/"))
        shape = network.shapes[call.inputs[-1 if keys else 0]]
    elif kind in _BY_OUTPUT:
        shape = network.shapes[call.outputs[0]]
    elif kind in _BY_INPUT or _projects_back(call, short):
        shape = network.shapes[call.inputs[0]]
    else:
        return None
    sizes = list(shape[1:])
    first = getattr(inner, "data_format", None) == "channels_first"
    # The steps of a TimeDistributed layer come before its channels.
    del sizes[(1 if inner is not call.layer else 0) if first else -1]
    known = [size for size in sizes if size is not None]
    return math.prod(known) if len(known) == len(sizes) else None


def _uses_in_product(call: Call, shape: Shape) -> int | None:
    """How often an EinsumDense uses its kernel: once for each sum of products."""
    known = [size for size in shape[1:] if size is not None]
    if len(known) < len(shape) - 1:
        return None
    read, kernel = call.layer.equation.split("->")[0].replace("...", "").split(",")
    summed = set(read) & set(kernel)
    sizes = dict(zip(kernel, call.weights["kernel"].shape, strict=True))
    return math.prod(known) // math.prod(sizes[letter] for letter in summed)
