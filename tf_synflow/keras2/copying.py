"""Copies a model, layer by layer; the copy shares nothing with the model."""

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_synflow.keras2 import ties
from tf_synflow.keras2.constraints import unconstrained
from tf_synflow.keras2.imports import TfmotWrapper, keras
from tf_synflow.keras2.weights import kind_of, layer_weights, weights_like
from tf_synflow.network import Network, check_ties
from tf_synflow.network.constraint_settings import masks_left_out
from tf_synflow.network.copies import InitialValues, deep_graphs


class CopiedLayer(NamedTuple):
    """A layer and its copy.

    Attributes:
      original: The layer that was copied, never a pruning wrapper.
      layer: Its copy, with the same weights.
      wrapper: The wrapper around the copy in the new model, or None.
    """

    original: Any
    layer: Any
    wrapper: Any


def config_of(layer: Any) -> dict[str, Any]:
    """The configuration of a layer, without its masks."""
    with masks_left_out():
        return layer.get_config()


def layer_from(layer_class: type, config: dict[str, Any]) -> Any:
    """A new layer of a class, from a configuration that `config_of` returned."""
    return unconstrained(layer_class.from_config(config))


def same_layer(layer: Any) -> Any:
    """A new layer of the same class and configuration."""
    return layer_from(type(layer), config_of(layer))


def copy_model(
    network: Network,
    *,
    make: Callable[[Any], Any] | None = None,
    wrap: Callable[[Any, Any], Any] = lambda original, layer: None,
    weights: Callable[[Any], bool] | None = None,
    inputs: Callable[[Any], list[tuple] | None] | None = None,
) -> tuple[Any, list[CopiedLayer]]:
    """Copies a model without its pruning wrappers.

    Args:
      network: The model, which is not changed.
      make: A function from a layer to a new, unbuilt layer with the same names of
        weights. Defaults to a layer of the same class and configuration.
      wrap: A function from a layer and its copy to a wrapper for the new model, or to
        None. Defaults to no wrappers.
      weights: A function that says whether to copy the weights of a layer. If not, the
        new layer initialises them. Defaults to None: all are copied.
      inputs: A function from a nested model to the shapes of its inputs in the copy,
        batch axis first, or to None if they stay the same. Defaults to None: all stay
        the same.

    Returns:
      The new model, which is uncompiled and of the same class, and all copied layers.

    Raises:
      ValueError: A copy would differ from the model, or would share a variable with it.
    """
    model, make = network.model, make or same_layer
    check_ties(network, tf.Variable)
    ties.check_einsum(network)
    ties.check_ancillary([model, *(nested for nested, _ in network.nested)])
    made: dict[int, Any] = {}
    copies: list[CopiedLayer] = []
    initial = InitialValues(keras.initializers.Zeros())

    def copy(layer: Any) -> Any:
        if id(layer) not in made:
            nested = isinstance(layer, keras.Model)
            made[id(layer)] = copy_nested(layer) if nested else copy_layer(layer)
        return made[id(layer)]

    def copy_nested(nested: Any) -> Any:
        shapes = inputs(nested) if inputs else None
        tensors = shapes and [
            keras.Input(shape[1:], shape[0], tensor.node.layer.name, tensor.dtype)
            for tensor, shape in zip(nested.inputs, shapes, strict=True)
        ]
        new = keras.models.clone_model(nested, tensors, clone_function=copy)
        new._trainable = nested._trainable  # the model's own flag, not its layers'
        return new

    def copy_layer(layer: Any) -> Any:
        original = layer.layer if isinstance(layer, TfmotWrapper) else layer
        with tape.stop_recording():  # get_config may read the original's weights
            new = make(original)
            _copy_vocabularies(original, new)
        if kind_of(original) and (weights is None or weights(original)):
            initial.spare(new)
        wrapper = wrap(original, new)
        copies.append(CopiedLayer(original, new, wrapper))
        return new if wrapper is None else wrapper

    with model.distribute_strategy.scope(), deep_graphs(2 * len(network.calls)):
        # Keras calls each layer of the copy once; the tape sees the variables they
        # read.
        with tf.GradientTape() as tape:
            result = copy(model)
        initial.restore()
        if type(result) is not type(model):
            raise ValueError(
                f"a copy of model {model.name!r} would lose its class, "
                f"{type(model).__name__}: give the class an __init__(self, inputs, "
                "outputs, **kwargs) that passes them on to keras.Model"
            )
        ties.check_shares_nothing(model, result, copies, tape.watched_variables())
        for copied in copies:
            _copy_trainable(copied.original, copied.layer)
            if weights is None or weights(copied.original):
                _copy_weights(copied.original, copied.layer)
    return result, copies


def _copy_weights(original: Any, layer: Any) -> None:
    variables = weights_like(original, layer)
    for short, variable in layer_weights(original).items():
        variables[short].assign(variable.numpy())
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()  # Normalization derives values from its weights


def _copy_trainable(original: Any, layer: Any) -> None:
    """Freezes the layers inside a layer as they are frozen in the original."""
    old, new = list(original._flatten_layers()), list(layer._flatten_layers())
    if [type(part) for part in old] == [type(part) for part in new]:
        for one, other in zip(old, new, strict=True):
            other._trainable = one._trainable


def _copy_vocabularies(original: Any, layer: Any) -> None:
    """Copies what `adapt` learned.

    This is done before the layer is called, because it decides the layer's shape.
    """
    old, new = _lookups(original), _lookups(layer)
    if len(old) != len(new):
        raise ValueError(
            f"layer {original.name!r} ({type(original).__name__}) holds {len(old)} "
            f"look-up layers, but a copy made from its get_config() holds {len(new)}. "
            "So what was learned by adapt() cannot be copied. Create the look-up "
            "layers in the layer's __init__, or keep them outside the model"
        )
    for one, other in zip(old, new, strict=True):
        if isinstance(one, keras.layers.Discretization):
            other.bin_boundaries = list(one.bin_boundaries)
            continue
        vocabulary = one.get_vocabulary()
        if len(vocabulary) == one._token_start_index():
            continue  # nothing learned yet
        # Keras pads the weights of "tf_idf" again, so the old padding is cut off.
        of_documents = one.output_mode == "tf_idf"
        idf = one.idf_weights.numpy()[: len(vocabulary)] if of_documents else None
        other.set_vocabulary(vocabulary, idf)


def _lookups(layer: Any) -> list[Any]:
    """The layers with a vocabulary or bins: the layer itself, or layers inside it."""
    return [
        part
        for part in layer._flatten_layers()
        if hasattr(part, "lookup_table")
        or isinstance(part, keras.layers.Discretization)
    ]
