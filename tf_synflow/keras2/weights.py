"""The weights of a layer of tf_keras by their names, and which can be pruned."""

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
    """What tf_keras calls the class of a layer, or the operator that it stands for.

    None for a class that is not tf_keras's own: a subclass may do something else.
    """
    cls = type(layer)
    if cls.__module__.partition(".")[0] != "tf_keras":
        own = cls.__module__ == "tf_synflow.keras2.attention"
        return cls.stands_for if own else None
    if cls.__name__ in ("TFOpLambda", "SlicingOpLambda"):
        return "tf." + (layer.symbol or "").removeprefix("compat.v1.")
    return cls.__name__


def layer_parts(layer: Any) -> dict[str, Part]:
    """The weights of a layer by their short names, and where they are kept.

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
      Short name to variable; none if there are none.
    """
    return pruned(layer_parts(layer), layer, kind_of)


def weights_on_request(layer: Any) -> list[str]:
    """Short names of the weights of a layer that are pruned on request."""
    return prunable(layer_parts(layer), layer, kind_of, ON_REQUEST)


# Layers whose masks tfmot's wrapper holds, and which keep their function in it.
_WRAPPABLE = (
    *("Dense", "Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "Conv3DTranspose"),
    *("SeparableConv1D", "SeparableConv2D"),
)


def wrappable(layer: Any) -> bool:
    """Whether tfmot's wrapper can hold the masks of a layer.

    It can hold those of a layer of the user's own that has `get_prunable_weights`, as
    tfmot asks for. MultiHeadAttention breaks in it on every copy and load. Of the other
    layers a constraint holds the masks as well as a wrapper would.
    """
    return kind_of(layer) in (None, *_WRAPPABLE) and bool(prunable_weights(layer))
