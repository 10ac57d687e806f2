"""The weights of layers: their names, and which of them can be pruned.

A layer may hold other layers: MultiHeadAttention holds four EinsumDense layers, and an
LSTM holds a cell. A weight of an inner layer is named by its path: "query/kernel" in
MultiHeadAttention, "lstm_cell/kernel" in an LSTM. Keras 3 calls this the variable's
path as well. Nothing here imports Keras 2 or Keras 3.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

_KERNELS = ("kernel", "recurrent_kernel")

# The weights of each kind of layer of Keras that are pruned by default.
PRUNABLE: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("Dense", "Conv1D", "Conv2D", "Conv3D"), ("kernel",)),
    **dict.fromkeys(("Conv2DTranspose", "Conv3DTranspose"), ("kernel",)),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), ("pointwise_kernel",)),
    "EinsumDense": ("kernel",),
    "Embedding": ("embeddings",),
    # Not its reverse_embeddings: Keras gives them no constraint that could hold a mask.
    "ReversibleEmbedding": ("embeddings",),
    **dict.fromkeys(("SimpleRNNCell", "LSTMCell", "GRUCell", "ConvLSTMCell"), _KERNELS),
}

# The weights that are pruned only if `layer_types` names the layer's class.
ON_REQUEST: dict[str, tuple[str, ...]] = {
    "Conv1DTranspose": ("kernel",),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), ("depthwise_kernel",)),
}

# Layers that hold EinsumDense layers for queries, keys, values and outputs.
ATTENTION = ("MultiHeadAttention", "GroupedQueryAttention")

# Layers that apply their inner layers unchanged. So weights of the inner layers can be
# pruned.
COMPOSITES = frozenset(
    {
        *(*ATTENTION, "TimeDistributed"),
        *("SimpleRNN", "LSTM", "GRU", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
        *("RNN", "StackedRNNCells", "Bidirectional"),
    }
)

# Layers that can take a mask of time steps, or a mask of the tokens that a token sees.
TAKE_MASKS = frozenset(
    {
        *(*ATTENTION, "Attention"),
        *("AdditiveAttention", "SimpleRNN", "LSTM", "GRU", "RNN"),
        *("ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
        *("Bidirectional", "TimeDistributed", "Softmax"),
    }
)


def names_a_mask(argument: str) -> bool:
    """Whether an argument of this name is a mask of time steps or tokens."""
    return argument == "mask" or argument.endswith("_mask")


# The attribute of a layer that holds the constraint of a weight of this name.
_CONSTRAINTS = {
    "pointwise_kernel": "pointwise_constraint",
    "depthwise_kernel": "depthwise_constraint",
    "recurrent_kernel": "recurrent_constraint",
}


class Part(NamedTuple):
    """A weight, and the layer that has it.

    Attributes:
      layer: The innermost layer that the weight belongs to.
      name: The weight's name in that layer ("kernel").
      variable: The variable.
    """

    layer: Any
    name: str
    variable: Any

    @property
    def constraint_attribute(self) -> str:
        """The attribute of the layer that configures the weight's constraint."""
        return _CONSTRAINTS.get(self.name, f"{self.name}_constraint")


# Function from a layer to its own variables by name, without those of inner layers.
Own = Callable[[Any], Iterable[tuple[str, Any]]]


def sublayers(layer: Any) -> Iterator[Any]:
    """The layers that a layer holds directly."""
    return iter(layer._flatten_layers(include_self=False, recursive=False))


def parts_of(layer: Any, own: Own, everything: Iterable[tuple[str, Any]]) -> dict:
    """The weights of a layer by their short names.

    Args:
      layer: A built layer.
      own: See `Own`.
      everything: The weights to name, in the layer's order: pairs of the name in the
        weight's own layer and the variable. Other weights are left out.

    Returns:
      Short name ("kernel", "query/kernel") to `Part`. A name that occurs again gets a
      number: "kernel", "kernel_1".
    """
    found: dict[int, tuple[str, Part]] = {}
    waiting = [(layer, "")]
    while waiting:
        holder, path = waiting.pop()
        for name, variable in own(holder):
            found.setdefault(id(variable), (path, Part(holder, name, variable)))
        waiting += [(inner, f"{path}{inner.name}/") for inner in sublayers(holder)]
    named: dict[str, Part] = {}
    for name, variable in everything:
        path, part = found.get(id(variable), ("", Part(layer, name, variable)))
        short, again = path + part.name, 0
        while short in named:
            again += 1
            short = f"{path}{part.name}_{again}"
        named[short] = part
    return named


def prunable(
    parts: dict[str, Part],
    layer: Any,
    kind_of: Callable[[Any], str | None],
    table: dict[str, tuple[str, ...]],
) -> list[str]:
    """The short names of the weights of a layer that a table names.

    Args:
      parts: The parts that `parts_of` returned.
      layer: The layer.
      kind_of: Function from a layer to Keras's name of its class.
      table: `PRUNABLE` or `ON_REQUEST`.
    """
    allowed = _open_layers(layer, kind_of)
    return [
        short
        for short, part in parts.items()
        if id(part.layer) in allowed
        and part.name in table.get(kind_of(part.layer) or "", ())
    ]


def pruned(
    parts: dict[str, Part], layer: Any, kind_of: Callable[[Any], str | None]
) -> dict[str, Any]:
    """Short name to variable of the weights of a layer that are pruned by default.

    A layer of the user's own names these weights itself, by `get_prunable_weights`.
    """
    names = prunable(parts, layer, kind_of, PRUNABLE)
    if kind_of(layer) is None and hasattr(layer, "get_prunable_weights"):
        wanted = {id(variable) for variable in layer.get_prunable_weights()}
        names = [short for short, part in parts.items() if id(part.variable) in wanted]
    return {short: parts[short].variable for short in names}


def renamed(own: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """The weights of a copied layer by the short names that the original has.

    The names of layers inside a layer of the user's own may differ in its copy.
    """
    names = list(names)
    same = own.keys() == set(names)
    return own if same else dict(zip(names, own.values(), strict=True))


def _open_layers(layer: Any, kind_of: Callable[[Any], str | None]) -> set[int]:
    """The ids of a layer and of the inner layers that composites apply unchanged."""
    found, waiting = set(), [layer]
    while waiting:
        holder = waiting.pop()
        found.add(id(holder))
        if kind_of(holder) in COMPOSITES:
            waiting += sublayers(holder)
    return found
