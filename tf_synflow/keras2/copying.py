"""Copies of a model, layer by layer: the same function, sharing nothing."""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import tensorflow as tf

from tf_synflow.keras2.imports import PruneLowMagnitude, deep_graphs, keras
from tf_synflow.keras2.reading import flatten
from tf_synflow.network import Graph, layer_weights


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
      ValueError: It is subclassed or not built, or a copy would not be the same, or
        would share a variable with the model.
    """
    graph = flatten(model)
    _check_ties(graph)
    _check_ancillary([model, *(nested for nested, _ in graph.nested)])
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
        new = keras.models.clone_model(nested, tensors, clone_function=copy)
        new._trainable = nested._trainable  # its own flag; its layers have theirs
        return new

    def copy_layer(layer: Any) -> Any:
        original = layer.layer if isinstance(layer, PruneLowMagnitude) else layer
        with tape.stop_recording():  # get_config may read the original's weights
            new = make(original)
            _copy_vocabularies(original, new)
        wrapper = wrap(original, new)
        copies.append(CopiedLayer(original, new, wrapper))
        return new if wrapper is None else wrapper

    with model.distribute_strategy.scope(), deep_graphs(2 * len(graph.calls)):
        # Keras calls each layer of the copy once; the tape sees what they compute with.
        with tf.GradientTape() as tape:
            result = copy(model)
        if type(result) is not type(model):
            raise ValueError(
                f"a copy of model {model.name!r} would lose its class, "
                f"{type(model).__name__}: give the class an __init__(self, inputs, "
                "outputs, **kwargs) that passes them on to keras.Model"
            )
        _check_shares_nothing(model, result, copies, tape.watched_variables())
        for copied in copies:
            _copy_trainable(copied.original, copied.layer)
            if weights(copied.original):
                _copy_weights(copied.original, copied.layer)
    return result, copies


def _copy_weights(original: Any, layer: Any) -> None:
    variables = layer_weights(layer)
    for short, variable in layer_weights(original).items():
        variables[short].assign(variable.numpy())
    if hasattr(layer, "finalize_state"):
        layer.finalize_state()  # Normalization computes with what it derives from them


def _copy_trainable(original: Any, layer: Any) -> None:
    """Freezes the layers inside a layer as they are frozen in the original."""
    old, new = list(original._flatten_layers()), list(layer._flatten_layers())
    if [type(part) for part in old] == [type(part) for part in new]:
        for one, other in zip(old, new, strict=True):
            other._trainable = one._trainable


def _copy_vocabularies(original: Any, layer: Any) -> None:
    """Copies what `adapt` learned: before the call, as it decides the layer's shape."""
    old, new = _lookups(original), _lookups(layer)
    if len(old) != len(new):
        raise ValueError(
            f"layer {original.name!r} ({type(original).__name__}) holds {len(old)} "
            f"look-up layers, but a copy made from its get_config() holds {len(new)}. "
            "What they learned by adapt() cannot be copied; create them in the "
            "layer's __init__, or keep them outside the model"
        )
    for one, other in zip(old, new, strict=True):
        if isinstance(one, keras.layers.Discretization):
            other.bin_boundaries = list(one.bin_boundaries)
            continue
        vocabulary = one.get_vocabulary()
        if len(vocabulary) == one._token_start_index():
            continue  # nothing learned yet
        # Keras pads the weights of "tf_idf" anew.
        of_documents = one.output_mode == "tf_idf"
        idf = one.idf_weights.numpy()[: len(vocabulary)] if of_documents else None
        other.set_vocabulary(vocabulary, idf)


def _lookups(layer: Any) -> list[Any]:
    """The layers with a vocabulary or with bins in a layer, itself included."""
    return [
        part
        for part in layer._flatten_layers()
        if hasattr(part, "lookup_table")
        or isinstance(part, keras.layers.Discretization)
    ]


def _check_ancillary(models: Iterable[Any]) -> None:
    """Refuses a Sequential model with loss terms, on which Keras's own copy fails."""
    for part in models:
        if isinstance(part, keras.Sequential) and min(part._nodes_by_depth) < 0:
            raise ValueError(
                f"model {part.name!r} is Sequential and has an add_loss or add_metric "
                "on one of its tensors, which Keras cannot copy; build it with "
                "keras.Model(inputs, outputs) and add the loss to that"
            )


def _check_ties(graph: Graph) -> None:
    """Refuses layers that compute with a weight of another layer."""
    owners: dict[int, str] = {}
    for call in graph.calls:
        arguments = tf.nest.flatten([call.node.call_args, call.node.call_kwargs])
        for argument in arguments:
            if isinstance(argument, tf.Variable):
                raise ValueError(
                    f"{call.name!r} is given the variable {argument.name!r} as an "
                    "argument. A copy of the model would go on using it, or a constant "
                    "in its place. Make it a layer of your own that has this weight "
                    "(add_weight in its build)"
                )
        for short, variable in layer_weights(call.layer).items():
            owner = owners.setdefault(id(variable), call.name)
            if owner != call.name:
                raise ValueError(
                    f"layers {owner!r} and {call.name!r} share the weight {short!r}. "
                    "tf_synflow does not support tied weights: a copy of the model "
                    f"would not be tied. Give {call.name!r} a weight of its own"
                )


def _check_shares_nothing(
    model: Any, result: Any, copies: list[CopiedLayer], read: Iterable[Any]
) -> None:
    """Refuses a copy that has, or reads, a variable that is not its own.

    Args:
      model: The original.
      result: Its copy.
      copies: All layers copied.
      read: The trainable variables that the layers of the copy read.
    """
    old = {id(part) for weight in model.weights for part in _parts(weight)}
    for original, layer, _ in copies:
        for variable in layer.weights:
            if old & {id(part) for part in _parts(variable)}:
                raise ValueError(
                    f"a copy of layer {original.name!r} ({type(original).__name__}) "
                    f"would share the variable {variable.name!r} with the model. Its "
                    "get_config() gives away a layer or a variable that it holds; let "
                    "it give keras.layers.serialize(layer) and read that in from_config"
                )
    own = {id(part) for weight in result.weights for part in _parts(weight)}
    foreign = [variable for variable in read if id(variable) not in own]
    if foreign:
        name, kind = _reader(result, foreign[0])
        raise ValueError(
            f"layer {name!r} ({kind}) computes with the variable {foreign[0].name!r}, "
            "which is not among its weights, so a copy of the model would share it. "
            "Make it a layer of your own that has this weight (add_weight in its "
            "build); a weight of another layer cannot be used"
        )


def _parts(variable: Any) -> list[Any]:
    """A variable and those that it stands for: cast, or one for each replica."""
    inner = getattr(variable, "_variable", variable)
    return [variable, inner, *getattr(inner, "values", ())]


def _reader(model: Any, variable: Any) -> tuple[str, str]:
    """Name and class of the layer that reads a variable."""
    for call in flatten(model).calls:
        with tf.GradientTape() as tape:
            (call.wrapper or call.layer)(*call.node.call_args, **call.node.call_kwargs)
        if any(seen is variable for seen in tape.watched_variables()):
            return call.name, type(call.layer).__name__
    return model.name, type(model).__name__
