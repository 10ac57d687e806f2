"""Copies a Keras 3 model, layer by layer; the copy shares nothing with the model."""

import contextlib
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from tf_synflow.checks import first_line
from tf_synflow.keras3.constraints import unconstrained
from tf_synflow.keras3.imports import (
    Functional,
    InputLayer,
    SafeModeScope,
    keras,
)
from tf_synflow.keras3.weights import kind_of, layer_weights, weights_like
from tf_synflow.network import Network, check_ties
from tf_synflow.network.constraint_settings import masks_left_out
from tf_synflow.network.copies import InitialValues, deep_graphs

# Methods that a class of models may define, and that a plain copy would lose.
_BEHAVIOUR = ("train_step", "test_step", "predict_step", "compute_loss", "call")


class CopiedLayer(NamedTuple):
    """A layer and its copy.

    Attributes:
      original: The layer that was copied.
      layer: Its copy, with the same weights.
    """

    original: Any
    layer: Any


def config_of(layer: Any) -> dict[str, Any]:
    """The configuration of a layer, without its masks."""
    with masks_left_out():
        return layer.get_config()


def layer_from(layer_class: type, config: dict[str, Any]) -> Any:
    """A new layer of a class, from a configuration that `config_of` returned."""
    # The function of a Lambda comes from this process, not from a file.
    with SafeModeScope(False):
        return unconstrained(layer_class.from_config(config))


def same_layer(layer: Any) -> Any:
    """A new layer of the same class and configuration."""
    return layer_from(type(layer), config_of(layer))


def copy_model(
    network: Network,
    *,
    make: Callable[[Any], Any] | None = None,
    weights: Callable[[Any], bool] | None = None,
    inputs: Callable[[Any], list[tuple] | None] | None = None,
) -> tuple[Any, list[CopiedLayer]]:
    """Copies a model without its masks.

    Args:
      network: The model, which is not changed.
      make: A function from a layer to a new, unbuilt layer with the same names of
        weights. Defaults to a layer of the same class and configuration.
      weights: A function that says whether to copy the weights of a layer. If not, the
        new layer initialises them. Defaults to None: all are copied.
      inputs: A function from a nested model to the shapes of its inputs in the copy,
        batch axis first, or to None if they stay the same. Defaults to None: all stay
        the same.

    Returns:
      The new, uncompiled model, and all copied layers. The new model has the class of
      the original if that class is made like `keras.Model(inputs, outputs)`; otherwise
      it has a class of Keras's own.

    Raises:
      ValueError: A copy would differ from the model, or would share a variable with it.
    """
    make = make or same_layer
    check_ties(network, keras.Variable)
    _check_lambdas(network)
    made: dict[int, Any] = {}
    copies: list[CopiedLayer] = []
    initial = InitialValues(keras.initializers.Zeros())

    def copy(operation: Any) -> Any:
        if id(operation) not in made:
            if isinstance(operation, keras.Model):
                made[id(operation)] = copy_nested(operation)
            elif isinstance(operation, keras.layers.Layer):
                made[id(operation)] = copy_layer(operation)
                copies.append(CopiedLayer(operation, made[id(operation)]))
            else:
                made[id(operation)] = same_layer(operation)
        return made[id(operation)]

    def copy_layer(layer: Any) -> Any:
        try:
            new = make(layer)
        # A from_config may raise anything; Keras turns most errors into a TypeError.
        except (TypeError, ValueError, NotImplementedError) as error:
            raise ValueError(
                f"layer {layer.name!r} ({type(layer).__name__}) cannot be made anew "
                f"from its get_config() ({first_line(error)[:150]}). A layer of your "
                "own has to give all arguments of its __init__ there; a function of "
                "your own, as an activation or so, needs a name (no lambda) and "
                "@keras.saving.register_keras_serializable()"
            ) from error
        _copy_vocabularies(layer, new)
        if kind_of(layer) and (weights is None or weights(layer)):
            initial.spare(new)
        return new

    def copy_nested(model: Any) -> Any:
        shapes = inputs(model) if inputs else None
        shapes = shapes or [tensor.shape for tensor in model.inputs]
        tensors = [
            _input(tensor, shape)
            for tensor, shape in zip(model.inputs, shapes, strict=True)
        ]
        if isinstance(model, keras.Sequential):
            layers = [copy(layer) for layer in model.layers]
            return _made(model, [*tensors, *layers])
        tensors = keras.tree.pack_sequence_as(model._inputs_struct, tensors)
        outputs = model._run_through_graph(tensors, operation_fn=copy)
        return _made(model, tensors, outputs)

    with deep_graphs(2 * len(network.calls)), scope(network.model):
        result = copy(network.model)
        initial.restore()
        _check_shares_nothing(network.model, copies)
        for original, layer in copies:
            _copy_trainable(original, layer)
            if weights is None or weights(original):
                _copy_weights(original, layer)
    return result, copies


def scope(model: Any) -> Any:
    """The scope of the strategy that a model was made under."""
    strategy = getattr(model, "distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def _input(tensor: Any, shape: tuple) -> Any:
    """A new input like the given input of a model."""
    layer = tensor._keras_history.operation
    name = layer.name if isinstance(layer, InputLayer) else tensor.name
    return keras.Input(
        batch_shape=shape,
        dtype=tensor.dtype,
        name=name,
        sparse=getattr(tensor, "sparse", False),
        optional=getattr(layer, "optional", False),
    )


def _made(model: Any, *arguments: Any) -> Any:
    """A model of the same class and name, from the arguments of its constructor."""
    kind = type(model)
    base = keras.Sequential if isinstance(model, keras.Sequential) else Functional
    if kind is not base and not _made_alike(kind, base):
        own = [part for part in kind.__mro__ if part.__module__[:6] != "keras."]
        lost = [w for w in _BEHAVIOUR if any(w in vars(part) for part in own)]
        if lost:
            raise ValueError(
                f"a copy of model {model.name!r} would lose its class, "
                f"{kind.__name__}, with its {', '.join(lost)}: give the class an "
                "__init__(self, inputs, outputs, **kwargs) that passes them on to "
                "keras.Model"
            )
        kind = base
    return kind(*arguments, name=model.name)


def _made_alike(kind: type, base: type) -> bool:
    """Whether a class takes the arguments of Keras's own class, and passes them on."""
    spec = inspect.getfullargspec(kind.__init__)
    if spec.varargs is not None and spec.varkw is not None:
        return True
    own = ["inputs", "outputs"] if base is Functional else ["layers"]
    named = "name" in spec.args or spec.varkw is not None
    known = {*own, "name", "trainable"}
    return named and spec.args[1:][: len(own)] == own and known >= {*spec.args[1:]}


def _copy_weights(original: Any, layer: Any) -> None:
    variables = weights_like(original, layer)
    for short, variable in layer_weights(original).items():
        # Not the variable itself: with JAX, both variables would then share one array,
        # and training one model would take the array away from the other model.
        variables[short].assign(variable.numpy())
    if isinstance(layer, keras.layers.Normalization):
        layer.finalize_state()  # it computes with values derived from its weights


def _copy_vocabularies(original: Any, layer: Any) -> None:
    """Copies what `adapt` learned.

    This is done before the layer is called, because it decides the layer's shape.
    """
    old, new = _adapted(original), _adapted(layer)
    if len(old) != len(new):
        raise ValueError(
            f"layer {original.name!r} ({type(original).__name__}) holds {len(old)} "
            f"look-up layers, but a copy made from its get_config() holds {len(new)}. "
            "So what was learned by adapt() cannot be copied. Create the look-up "
            "layers in the layer's __init__, or keep them outside the model"
        )
    for one, other in zip(old, new, strict=True):
        if isinstance(one, keras.layers.Discretization):
            other.bin_boundaries = one.bin_boundaries and list(one.bin_boundaries)
            continue
        vocabulary = one.get_vocabulary()
        if list(other.get_vocabulary()) == list(vocabulary):
            continue
        of_documents = one.output_mode == "tf_idf"
        # Keras pads the weights of "tf_idf" again, so the old padding is cut off.
        idf = one.idf_weights_const.numpy()[: len(vocabulary)] if of_documents else None
        other.set_vocabulary(vocabulary, idf)


def _adapted(layer: Any) -> list[Any]:
    """The layers with a vocabulary or bins: the layer itself, or layers inside it."""
    return [
        part
        for part in layer._flatten_layers()
        if hasattr(part, "lookup_table")
        or isinstance(part, keras.layers.Discretization)
    ]


def _copy_trainable(original: Any, layer: Any) -> None:
    """Freezes the layers inside a layer as they are frozen in the original."""
    old, new = list(original._flatten_layers()), list(layer._flatten_layers())
    if [type(part) for part in old] == [type(part) for part in new]:
        for one, other in zip(old, new, strict=True):  # a layer before its inner layers
            other.trainable = one.trainable
    for one, other in zip(original.variables, layer.variables, strict=False):
        if one.trainable != other.trainable and one.name == other.name:
            other.trainable = one.trainable


def _check_lambdas(network: Network) -> None:
    """Refuses Lambda layers whose function refers to layers or variables."""
    for call in network.calls:
        function = getattr(call.layer, "function", None)
        if call.kind == "Lambda" and (held := _held(function)):
            raise ValueError(
                f"layer {call.name!r} (Lambda) computes with {held}, which is not "
                "among its weights, so a copy of the model would share it. Make it a "
                "layer of your own that has this weight (add_weight in its build)"
            )


def _held(function: Any) -> str:
    """The layers and variables that a Python function refers to, for a message."""
    if not inspect.isfunction(function):
        return ""
    names = inspect.getclosurevars(function)
    kinds = (keras.Variable, keras.layers.Layer)
    return ", ".join(
        repr(name)
        for name, value in {**names.globals, **names.nonlocals}.items()
        if isinstance(value, kinds)
    )


def _check_shares_nothing(model: Any, copies: list[CopiedLayer]) -> None:
    """Refuses a copy that has a variable of the original."""
    old = {id(variable) for variable in model.variables}
    for original, layer in copies:
        for variable in layer.variables:
            if id(variable) in old:
                raise ValueError(
                    f"a copy of layer {original.name!r} ({type(original).__name__}) "
                    f"would share the variable {variable.path!r} with the model. Its "
                    "get_config() gives away a layer or a variable that it holds; let "
                    "it give keras.layers.serialize(layer) and read that in from_config"
                )
