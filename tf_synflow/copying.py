"""Copies of a model, layer by layer: the same function, sharing nothing."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tf_synflow._compat import PruneLowMagnitude, deep_graphs, keras
from tf_synflow.graph import flatten, layer_weights


class CopiedLayer(NamedTuple):
    """A layer and its copy.

    Attributes:
      original: The layer copied, never a pruning wrapper.
      layer: Its copy, with the same weights.
      wrapper: What stands in the new model around the copy, or None.
    """

    original: Any
    layer: Any
    wrapper: Any


def same_layer(layer: Any) -> Any:
    """A new layer of the same class and configuration."""
    return type(layer).from_config(layer.get_config())


def copy_model(
    model: Any,
    make: Callable[[Any], Any] = same_layer,
    wrap: Callable[[Any, Any], Any] = lambda original, layer: None,
    weights: Callable[[Any], bool] = lambda original: True,
    inputs: Callable[[Any], list[tuple] | None] = lambda nested: None,
) -> tuple[Any, list[CopiedLayer]]:
    """Copies a model, pruning wrappers taken off.

    Args:
      model: A built Sequential or functional tf_keras model. It is not changed.
      make: Gives a new, unbuilt layer with the same weights for a layer. Defaults to
        one of the same class and configuration.
      wrap: From a layer and its copy, gives a wrapper to stand in the new model, or
        None. Defaults to none.
      weights: Whether a layer's weights are copied too; if not, they are as the layer
        initialises them. Defaults to all.
      inputs: For a nested model, the shapes of its inputs in the copy, batch axis
        first; None: as they are. Defaults to None for all.

    Returns:
      The new model, uncompiled and of the same class; and all layers copied.

    Raises:
      TypeError: `model` is no tf_keras model.
      ValueError: It is subclassed or not built, or a copy would not be the same.
    """
    graph = flatten(model)  # refuses what cannot be copied
    made: dict[int, Any] = {}
    copies: list[CopiedLayer] = []

    def copy(layer: Any) -> Any:
        if id(layer) not in made:
            nested = isinstance(layer, keras.Model)
            made[id(layer)] = copy_nested(layer) if nested else copy_layer(layer)
        return made[id(layer)]

    def copy_nested(nested: Any) -> Any:
        shapes = inputs(nested)
        tensors = shapes and [
            keras.Input(shape[1:], shape[0], tensor.node.layer.name, tensor.dtype)
            for tensor, shape in zip(nested.inputs, shapes, strict=True)
        ]
        return keras.models.clone_model(nested, tensors, clone_function=copy)

    def copy_layer(layer: Any) -> Any:
        original = layer.layer if isinstance(layer, PruneLowMagnitude) else layer
        new = make(original)
        wrapper = wrap(original, new)
        copies.append(CopiedLayer(original, new, wrapper))
        return new if wrapper is None else wrapper

    with model.distribute_strategy.scope(), deep_graphs(2 * len(graph.calls)):
        result = copy(model)
        if type(result) is not type(model):
            raise ValueError(
                f"a copy of model {model.name!r} would lose its class, "
                f"{type(model).__name__}: give the class an __init__(self, inputs, "
                "outputs, **kwargs) that passes them on to keras.Model"
            )
        for copied in copies:
            if not weights(copied.original):
                continue
            _copy_weights(copied.original, copied.layer)
    return result, copies


def _copy_weights(original: Any, layer: Any) -> None:
    tables = [weight for weight in original.weights if not hasattr(weight, "assign")]
    if tables and not original.get_config().get("vocabulary"):
        raise ValueError(
            f"layer {original.name!r} ({type(original).__name__}) has learned a "
            "vocabulary by adapt(), which cannot be copied; give it the vocabulary "
            "when it is made, vocabulary=layer.get_vocabulary(), or keep it outside "
            "the model"
        )
    variables = layer_weights(layer)
    for short, variable in layer_weights(original).items():
        variables[short].assign(variable.numpy())
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()  # Normalization computes with what it derives from them
