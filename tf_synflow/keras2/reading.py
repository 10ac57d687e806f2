"""Reads a tf_keras model as a `Network`, without nested models and wrappers."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.imports import Functional, TfmotWrapper, keras
from tf_synflow.keras2.weights import (
    kind_of,
    layer_weights,
    prunable_weights,
    weights_on_request,
)
from tf_synflow.network import (
    Call,
    Nested,
    Network,
    Shape,
    Slot,
    assembled,
)
from tf_synflow.network.constraint_settings import held_by
from tf_synflow.network.layer_weights import TAKE_MASKS, names_a_mask


def read(model: Any) -> Network:
    """Reads a model.

    Args:
      model: A built Sequential or functional tf_keras model, wrapped by tfmot or not.

    Raises:
      TypeError: See `check_model`.
      ValueError: See `check_model`.
    """
    return with_masks(lay_flat(model))


def with_masks(network: Network) -> Network:
    """A network with its present masks, which describe the weights as they are.

    Args:
      network: A network that `lay_flat` returned.
    """
    wrapped = wrapped_weights(network.calls)
    masks, revived = {}, 0
    for name, (weight, mask) in mask_variables(network.calls).items():
        masks[name] = mask.numpy().astype(bool)
        # A plain model computes with a loaded weight, even if its mask prunes it. A
        # wrapper zeroes pruned weights before its layer uses them.
        if id(weight) not in wrapped:
            back = (weight.numpy() != 0) & ~masks[name]
            revived += int(np.count_nonzero(back))
            masks[name] |= back
    return dataclasses.replace(network, masks=masks, revived=revived)


def lay_flat(model: Any) -> Network:
    """Reads a model without its masks."""
    check_model(model)
    walk = _Walk({}, {}, [], {}, [])
    inputs = tuple(map(walk.new, model.inputs))
    outputs = _visit(model, "", inputs, walk)
    return assembled(
        walk.calls,
        prunable_weights,
        weights_on_request,
        model=model,
        inputs=inputs,
        outputs=outputs,
        shapes=walk.shapes,
        dtypes=walk.dtypes,
        nested=tuple(walk.nested),
    )


def check_model(model: Any) -> None:
    """Checks that an object is a built Sequential or functional tf_keras model.

    Args:
      model: An object of tf_keras.

    Raises:
      TypeError: `model` is no model, but a layer, an optimizer ...
      ValueError: `model` is subclassed, so that its layers cannot be listed, or it is
        not built.
    """
    if not isinstance(model, keras.Model):
        expected = "expected a built Sequential or functional tf_keras model"
        kind = f"{type(model).__module__}.{type(model).__qualname__}"
        if isinstance(model, keras.layers.Layer):
            raise TypeError(f"{expected}, got a single layer: {kind}, {model.name!r}")
        raise TypeError(f"{expected}, got {kind}: {str(model)[:80]!r}")
    if isinstance(model, keras.Sequential) and not model._is_graph_network:
        raise ValueError(
            f"model {model.name!r} has no input shape yet; give its first layer an "
            "`input_shape=`, or call `model.build((None, ...))` and check that "
            "`model.inputs` is then set"
        )
    if not getattr(model, "_is_graph_network", False):
        raise ValueError(
            f"model {model.name!r} is a subclassed model ({type(model).__name__}), "
            "whose layer calls cannot be listed; build it with the functional API, "
            "keras.Model(inputs, outputs), or keras.Sequential"
        )
    # If the class of a functional model has its own `call`, Keras runs that, not the
    # graph.
    if type(model).call not in (Functional.call, keras.Sequential.call):
        raise ValueError(
            f"model {model.name!r} is of the class {type(model).__name__}, which has a "
            "`call` of its own, so that its layer calls cannot be listed; build it "
            "with keras.Model(inputs, outputs) or keras.Sequential"
        )


class _Walk(NamedTuple):
    """What the recursion over nested models shares."""

    shapes: dict[int, Shape]
    dtypes: dict[int, str]
    calls: list[Call]
    names: dict[int, str]
    nested: list[Nested]

    def new(self, tensor: Any) -> int:
        """A new number for a tensor."""
        number = len(self.shapes)
        self.shapes[number] = tuple(tensor.shape)
        self.dtypes[number] = tf.as_dtype(tensor.dtype).name
        return number


def _visit(
    model: Any, prefix: str, inputs: tuple[int, ...], walk: _Walk
) -> tuple[int, ...]:
    """Appends the calls of `model`, applied to `inputs`; returns its outputs."""
    numbers = dict(zip(map(id, model.inputs), inputs, strict=True))
    for node in _nodes(model):
        layer, wrapper = node.layer, None
        if isinstance(layer, TfmotWrapper):
            layer, wrapper = layer.layer, layer
        reads = tuple(numbers[id(t)] for t in tf.nest.flatten(node.keras_inputs))
        tensors = tf.nest.flatten(node.outputs)
        if isinstance(layer, keras.Model):
            check_model(layer)
            reads = _by_input(layer, node, numbers)
            walk.nested.append(Nested(layer, reads))
            gives = _visit(layer, f"{prefix}{layer.name}/", reads, walk)
        else:
            gives = tuple(map(walk.new, tensors))
            name = walk.names.setdefault(id(layer), prefix + layer.name)
            call = _call(node, layer, name, reads, gives, numbers)
            walk.calls.append(call._replace(wrapper=wrapper))
        numbers.update(zip(map(id, tensors), gives, strict=True))
    return tuple(numbers[id(tensor)] for tensor in model.outputs)


def _call(
    node: Any,
    layer: Any,
    name: str,
    reads: tuple[int, ...],
    gives: tuple[int, ...],
    numbers: dict[int, int],
) -> Call:
    places, given = list(node.call_args), dict(node.call_kwargs)
    masks = False
    if kind_of(layer) in TAKE_MASKS:
        # No signal flows through masks of time steps or of attention.
        names = list(inspect.signature(layer.call).parameters)
        for index, argument in enumerate(names[: len(places)]):
            if names_a_mask(argument) and _has_tensors(places[index]):
                places[index], masks = None, True
        for argument in filter(names_a_mask, given):
            if _has_tensors(given[argument]):
                given[argument], masks = None, True
    arguments = _with_slots(tuple(places), numbers)
    options = {key: _with_slots(value, numbers) for key, value in given.items()}
    if masks:
        slots = tf.nest.flatten((arguments, options))
        reads = tuple(slot.number for slot in slots if isinstance(slot, Slot))
    return Call(
        name=name,
        kind=kind_of(layer),
        layer=layer,
        weights=layer_weights(layer),
        inputs=reads,
        outputs=gives,
        arguments=arguments,
        options=options,
        wrapper=None,
    )


def _has_tensors(argument: Any) -> bool:
    return any(hasattr(part, "_keras_history") for part in tf.nest.flatten(argument))


def _with_slots(arguments: Any, numbers: dict[int, int]) -> Any:
    """Arguments of a call with a `Slot` in the place of each tensor of the model."""

    def slot(argument: Any) -> Any:
        known = hasattr(argument, "_keras_history") and id(argument) in numbers
        return Slot(numbers[id(argument)]) if known else argument

    return tf.nest.map_structure(slot, arguments)


def _by_input(model: Any, node: Any, numbers: dict[int, int]) -> tuple[int, ...]:
    """The tensors that a nested model reads, in the order of its inputs.

    A dictionary of tensors is read by name.
    """
    given = node.call_args[0] if node.call_args else None
    tensors = tf.nest.flatten(node.keras_inputs)
    if isinstance(given, dict):
        tensors = [given[name] for name in model.input_names]
    return tuple(numbers[id(tensor)] for tensor in tensors)


def _nodes(model: Any) -> Iterator[Any]:
    """The calls that Keras makes when it runs `model`, in their order."""
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if not node.is_input:
                yield node


def layer_nodes(model: Any) -> Iterator[Any]:
    """Keras's records of the calls of layers, also of those in nested models."""
    for node in _nodes(model):
        if isinstance(node.layer, keras.Model):
            yield from layer_nodes(node.layer)
        else:
            yield node


def mask_variables(calls: tuple[Call, ...]) -> dict[str, tuple[Any, Any]]:
    """Name to (weight variable, mask variable) of every pruned weight.

    A mask is in the wrapper of its layer; or, for example if a plain model was pruned
    inside `fit`, in the constraint of its weight.
    """
    found = {}
    for call in calls:
        wrapped = call.wrapper.pruning_vars if call.wrapper else ()
        masks = {id(weight): mask for weight, mask, _ in wrapped}
        for short, variable in call.weights.items():
            constraint = held_by(short, variable)
            if constraint is not None:
                masks.setdefault(id(variable), constraint.mask)
            if id(variable) in masks:
                found[f"{call.name}/{short}"] = (variable, masks[id(variable)])
    return found


def wrapped_weights(calls: tuple[Call, ...]) -> set[int]:
    """The ids of the weights that a wrapper masks whenever its layer is called."""
    wrappers = [call.wrapper for call in calls if call.wrapper is not None]
    return {id(weight) for w in wrappers for weight, _, _ in w.pruning_vars}
