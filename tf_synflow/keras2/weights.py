"""The weights of a tf_keras layer by their names, and which of them can be pruned."""

from typing import Any

from tf_synflow.network.layer_weights import (
    ON_REQUEST,
    Part,
    parts_of,
    prunable,
    pruned,
    renamed,
)


def kind_of(layer: Any) -> str | None:
    """The name of a layer's class in tf_keras, or of the operator that it stands for.

    None for a class that is not tf_keras's own, because a subclass may compute
    something else.
    """
    cls = type(layer)
    if cls.__module__.partition(".")[0] != "tf_keras":
        own = cls.__module__ == "tf_synflow.keras2.attention"
        return cls.stands_for if own else None
    if cls.__name__ in ("TFOpLambda", "SlicingOpLambda"):
        return "tf." + (layer.symbol or "").removeprefix("compat.v1.")
    return cls.__name__


def layer_parts(layer: Any) -> dict[str, Part]:
    """The weights of a layer by their short names, each with the layer that keeps it.

    Args:
      layer: A built layer, no wrapper.

    Returns:
      Short name ("kernel", "query/kernel") to `Part`, in the layer's order. Look-up
      tables, which Keras counts among the weights, are left out.
    """
    everything = [
        (_own_name(variable), variable)
        for variable in layer.weights
        if hasattr(variable, "assign")
    ]
    return parts_of(layer, _own_variables, everything)


def _own_variables(layer: Any) -> list[tuple[str, Any]]:
    own = (*layer._trainable_weights, *layer._non_trainable_weights)
    return [(_own_name(v), v) for v in own if hasattr(v, "assign")]


def _own_name(variable: Any) -> str:
    return variable.name.split("/")[-1].split(":")[0]


def layer_weights(layer: Any) -> dict[str, Any]:
    """Short name to variable of each weight of a layer; see `layer_parts`."""
    return {short: part.variable for short, part in layer_parts(layer).items()}


def weights_like(original: Any, layer: Any) -> dict[str, Any]:
    """The variables of a copied layer by the short names that the original has."""
    return renamed(layer_weights(layer), layer_weights(original))


def prunable_weights(layer: Any) -> dict[str, Any]:
    """The weights of a layer that are pruned.

    Args:
      layer: A built layer, no wrapper.

    Returns:
      Short name to variable; empty if no weight is pruned.
    """
    return pruned(layer_parts(layer), layer, kind_of)


def weights_on_request(layer: Any) -> list[str]:
    """Short names of a layer's weights that are pruned on request.

    These weights are pruned only if `layer_types` names the class of the layer.
    """
    return prunable(layer_parts(layer), layer, kind_of, ON_REQUEST)


# Layers whose masks tfmot's wrapper holds, and that compute the same in the wrapper.
_WRAPPABLE = (
    *("Dense", "Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose"),
    *("SeparableConv1D", "SeparableConv2D"),
)


def wrappable(layer: Any) -> bool:
    """Whether tfmot's wrapper can hold the masks of a layer.

    The wrapper can hold the masks of a user's own layer if this layer has the method
    `get_prunable_weights`, which tfmot needs. MultiHeadAttention breaks in the wrapper
    on every copy and load. For the other layers, a constraint holds the masks as well
    as a wrapper would.
    """
    return kind_of(layer) in (None, *_WRAPPABLE) and bool(prunable_weights(layer))
