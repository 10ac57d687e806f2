"""The weights of a layer of Keras 3 by their names, and which can be pruned."""

from typing import Any

from tf_synflow.keras3 import operations
from tf_synflow.network.layer_weights import (
    ON_REQUEST,
    Part,
    parts_of,
    prunable,
    pruned,
    renamed,
)


def kind_of(layer: Any) -> str | None:
    """What Keras calls the class of a layer.

    None for a class that is not Keras's own: a subclass may do something else.
    """
    cls = type(layer)
    if cls.__module__.partition(".")[0] != "keras":
        own = cls.__module__ == "tf_synflow.keras3.attention"
        return cls.stands_for if own else None
    return cls.__name__


def layer_parts(layer: Any) -> dict[str, Part]:
    """The weights of a layer by their short names, and where they are kept.

    Args:
      layer: A built layer.

    Returns:
      Short name ("kernel", "query/kernel") to `Part`, in the layer's order. The state
      of random number generators is not among them.
    """
    everything = [(_own_name(layer, v), v) for v in layer.weights]
    return parts_of(layer, _own_variables, everything)


def _own_variables(layer: Any) -> list[tuple[str, Any]]:
    own = (*layer._trainable_variables, *layer._non_trainable_variables)
    return [(_own_name(layer, variable), variable) for variable in own]


def _own_name(layer: Any, variable: Any) -> str:
    # Keras 2 has this name for it.
    depthwise = (kind_of(layer) or "").startswith("DepthwiseConv")
    other = depthwise and variable.name == "kernel"
    return "depthwise_kernel" if other else variable.name


def layer_weights(layer: Any) -> dict[str, Any]:
    """Short name to variable of each weight of a layer; see `layer_parts`."""
    return {short: part.variable for short, part in layer_parts(layer).items()}


def weights_like(original: Any, layer: Any) -> dict[str, Any]:
    """The variables of a copied layer by the short names that the original has."""
    return renamed(layer_weights(layer), layer_weights(original))


def prunable_weights(layer: Any) -> dict[str, Any]:
    """The weights of a layer that are pruned.

    Args:
      layer: A built layer, or what stands for an operation.

    Returns:
      Short name to variable; none if there are none.
    """
    if isinstance(layer, operations.Operator):
        return {}
    return pruned(layer_parts(layer), layer, kind_of)


def weights_on_request(layer: Any) -> list[str]:
    """Short names of the weights of a layer that are pruned on request."""
    if isinstance(layer, operations.Operator):
        return []
    return prunable(layer_parts(layer), layer, kind_of, ON_REQUEST)


def wrappable(layer: Any) -> bool:
    """Whether tfmot's wrapper, which is for Keras 2, can hold the masks of a layer."""
    return False
