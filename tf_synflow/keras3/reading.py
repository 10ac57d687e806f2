"""Reads a Keras 3 model as a `Network`, in which nested models are laid flat."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from tf_synflow.keras3 import operations
from tf_synflow.keras3.imports import Functional, keras
from tf_synflow.keras3.translations import translate
from tf_synflow.keras3.weights import (
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
from tf_synflow.network.layer_weights import names_a_mask


def read(model: Any) -> Network:
    """Reads a model.

    Args:
      model: A built Sequential or functional Keras 3 model, pruned or not.

    Raises:
      TypeError: See `check_model`.
      ValueError: See `check_model`; or a layer is quantised, or has LoRA weights.
    """
    return with_masks(lay_flat(model))


def with_masks(network: Network) -> Network:
    """A network with its present masks; a pruned weight that is not 0 counts as kept.

    Args:
      network: A network that `lay_flat` returned.
    """
    masks, revived = {}, 0
    for name, mask in held_masks(network.weights).items():
        # The model computes with a loaded weight, even if its mask prunes it.
        back = (network.weights[name].numpy() != 0) & ~mask
        revived += int(np.count_nonzero(back))
        masks[name] = mask | back
    return dataclasses.replace(network, masks=masks, revived=revived)


def held_masks(weights: dict[str, Any]) -> dict[str, np.ndarray]:
    """Name to mask of every weight whose constraint holds a mask."""
    held = {name: held_by(name, variable) for name, variable in weights.items()}
    return {name: constraint.mask for name, constraint in held.items() if constraint}


def lay_flat(model: Any, keras_masks: bool = False) -> Network:
    """Reads a model without its masks.

    Args:
      model: The model.
      keras_masks: Whether to include masks of time steps in the arguments of calls, and
        the operations that compute these masks in the calls. No signal flows through
        such masks. Defaults to False.
    """
    check_model(model)
    walk = _Walk({}, {}, [], {}, [], keras_masks)
    inputs = tuple(map(walk.new, model.inputs))
    outputs = _visit(model, "", inputs, walk)
    return assembled(
        _but_for_masks(walk.calls, outputs),
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
    """Checks that an object is a built Sequential or functional Keras 3 model.

    Args:
      model: An object of Keras 3.

    Raises:
      TypeError: `model` is no model, but a layer, an optimizer ...
      ValueError: `model` is subclassed, so that its layers cannot be listed, or it is
        not built.
    """
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if not isinstance(model, keras.Model):
        expected = "expected a built Sequential or functional Keras model"
        if isinstance(model, keras.layers.Layer):
            raise TypeError(f"{expected}, got a single layer: {kind}, {model.name!r}")
        raise TypeError(f"{expected}, got {kind}: {str(model)[:80]!r}")
    if isinstance(model, keras.Sequential):
        if model._functional is None:
            raise ValueError(
                f"model {model.name!r} has no input shape yet; begin it with "
                "`keras.Input(shape)`, or call `model.build((None, ...))` and check "
                "that `model.inputs` is then set"
            )
    elif not isinstance(model, Functional):
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
    keras_masks: bool

    def new(self, tensor: Any) -> int:
        """A new number for a tensor."""
        number = len(self.shapes)
        self.shapes[number] = tuple(tensor.shape)
        self.dtypes[number] = keras.backend.standardize_dtype(tensor.dtype)
        return number


def _visit(
    model: Any, prefix: str, inputs: tuple[int, ...], walk: _Walk
) -> tuple[int, ...]:
    """Appends the calls of `model`, applied to `inputs`; returns its outputs."""
    numbers = dict(zip(map(id, model.inputs), inputs, strict=True))
    for node in _nodes(model, set(numbers)):
        operation = node.operation
        if isinstance(operation, keras.Model):
            check_model(operation)
            reads = _by_input(operation, node, numbers)
            walk.nested.append(Nested(operation, reads))
            gives = _visit(operation, f"{prefix}{operation.name}/", reads, walk)
        else:
            gives = tuple(map(walk.new, node.outputs))
            walk.calls.append(_call(node, prefix, numbers, gives, walk))
        numbers.update(zip(map(id, node.outputs), gives, strict=True))
    return tuple(numbers[id(tensor)] for tensor in model.outputs)


def _call(
    node: Any,
    prefix: str,
    numbers: dict[int, int],
    gives: tuple[int, ...],
    walk: _Walk,
) -> Call:
    operation = node.operation
    # Masks of time steps come as arguments too. No signal flows through them.
    given, places = dict(node.arguments.kwargs), list(node.arguments.args)
    if not walk.keras_masks:
        given = {k: None if is_mask(k, value) else value for k, value in given.items()}
        if isinstance(operation, keras.layers.Layer):
            names = inspect.signature(operation.call).parameters
            for index, (argument, value) in enumerate(zip(names, places, strict=False)):
                places[index] = None if is_mask(argument, value) else value
    arguments = _with_slots(tuple(places), numbers)
    options = _with_slots(given, numbers)
    reads = tuple(slot.number for slot in _slots((arguments, options)))
    name = walk.names.setdefault(id(operation), prefix + operation.name)
    if isinstance(operation, keras.layers.Layer):
        _check_layer(operation, name)
        layer, kind = operation, kind_of(operation)
        weights = layer_weights(operation)
    else:
        translated = translate(operation, arguments, options)
        layer = operations.Operator(operation, translated)
        kind, weights = operations.kind_of(layer), {}
        if translated is not None:
            arguments, options = translated.arguments, translated.options
    return Call(
        name=name,
        kind=kind,
        layer=layer,
        weights=weights,
        inputs=reads,
        outputs=gives,
        arguments=arguments,
        options=options,
        wrapper=None,
    )


def is_mask(key: str, value: Any) -> bool:
    """Whether an argument of a call is a tensor with a mask of time steps."""
    parts = value if isinstance(value, (list, tuple)) else [value]
    return names_a_mask(key) and any(
        isinstance(part, (keras.KerasTensor, Slot)) for part in parts
    )


def _but_for_masks(calls: list[Call], outputs: tuple[int, ...]) -> tuple[Call, ...]:
    """The calls without the operations that only compute masks of time steps."""
    needed, left = set(outputs), []
    for call in reversed(calls):
        if needed.intersection(call.outputs) or not isinstance(
            call.layer, operations.Operator
        ):
            needed.update(call.inputs)
            left.append(call)
    return tuple(reversed(left))


def _slots(structure: Any) -> list[Slot]:
    return [part for part in keras.tree.flatten(structure) if isinstance(part, Slot)]


def _with_slots(arguments: Any, numbers: dict[int, int]) -> Any:
    """Arguments of a call with a `Slot` in the place of each tensor of the model."""

    def slot(argument: Any) -> Any:
        return Slot(numbers[id(argument)]) if id(argument) in numbers else argument

    return keras.tree.map_structure(slot, arguments, none_is_leaf=True)


def _by_input(model: Any, node: Any, numbers: dict[int, int]) -> tuple[int, ...]:
    """The tensors that a nested model reads, in the order of its inputs.

    A dictionary of tensors is read by name.
    """
    given = node.arguments.args[0] if node.arguments.args else None
    tensors = keras.tree.flatten(node.input_tensors)
    own = graph_of(model)._inputs_struct
    if isinstance(given, dict) and not isinstance(own, dict):
        tensors = [given[tensor.name] for tensor in model.inputs]
    elif isinstance(given, dict):
        tensors = keras.tree.flatten({name: given[name] for name in own})
    return tuple(numbers[id(tensor)] for tensor in tensors[: len(model.inputs)])


def graph_of(model: Any) -> Any:
    """The functional model inside a Sequential model; any other model itself."""
    return model._functional if isinstance(model, keras.Sequential) else model


def _nodes(model: Any, known: set[int]) -> Iterator[Any]:
    """The calls that Keras makes when it runs `model`, in their order."""
    by_depth = graph_of(model)._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.operation is None or node.is_input:
                continue
            # If a model begins at an inner tensor, its graph also has nodes from before
            # it.
            if all(id(tensor) in known for tensor in node.input_tensors):
                known.update(map(id, node.outputs))
                yield node


def _check_layer(layer: Any, name: str) -> None:
    """Refuses layers whose kernel is not one floating-point variable."""
    for part in layer._flatten_layers():
        where = f"layer {name!r} ({type(part).__name__})"
        if getattr(part, "quantization_mode", None) is not None:
            raise ValueError(
                f"{where} is quantised ({part.quantization_mode}), and its integers "
                "cannot be scored or masked. Prune the model before model.quantize"
            )
        if getattr(part, "lora_enabled", False):
            raise ValueError(
                f"{where} has LoRA weights, so its kernel is a sum that has no mask of "
                "its own. Prune the model before enable_lora, or merge the LoRA "
                "weights: build the model anew without them and set the merged weights"
            )
