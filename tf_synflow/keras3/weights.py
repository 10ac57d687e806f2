"""The weights of a layer of Keras 3 by their names, and which of them can be pruned."""

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
    """The name of a layer's class in Keras.

    None for a class that is not Keras's own, because a subclass may compute something
    else.
    """
    cls = type(layer)
    if cls.__module__.partition(".")[0] != "keras":
        own = cls.__module__ == "tf_synflow.keras3.attention"
        return cls.stands_for if own else None
    return cls.__name__


def layer_parts(layer: Any) -> dict[str, Part]:
    """The weights of a layer by their short names, each with the layer that keeps it.

    Args:
      layer: A built layer.

    Returns:
      Short name ("kernel", "query/kernel") to `Part`, in the layer's order. States of
      random number generators are left out.
    """
    everything = [(_own_name(layer, v), v) for v in layer.weights]
    return parts_of(layer, _own_variables, everything)


def _own_variables(layer: Any) -> list[tuple[str, Any]]:
    own = (*layer._trainable_variables, *layer._non_trainable_variables)
    return [(_own_name(layer, variable), variable) for variable in own]


def _own_name(layer: Any, variable: Any) -> str:
    # The kernel has the name that it has in Keras 2.
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
      layer: A built layer, or the `Operator` of an operation.

    Returns:
      Short name to variable; empty if no weight is pruned.
    """
    if isinstance(layer, operations.Operator):
        return {}
    return pruned(layer_parts(layer), layer, kind_of)


def weights_on_request(layer: Any) -> list[str]:
    """Short names of a layer's weights that are pruned on request.

    These weights are pruned only if `layer_types` names the class of the layer.
    """
    if isinstance(layer, operations.Operator):
        return []
    return prunable(layer_parts(layer), layer, kind_of, ON_REQUEST)


def wrappable(layer: Any) -> bool:
    """Whether tfmot's wrapper, which is for Keras 2, can hold the masks of a layer."""
    return False
