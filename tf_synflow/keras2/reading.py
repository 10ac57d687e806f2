"""A Keras model as the flat list of layer calls that it makes.

Nested models are laid flat, tfmot wrappers are looked through, and a layer that is
called twice gives two calls of one layer. Everything that walks a network (the linear
twin, the report, the names of the weights) walks this list, so there is one answer to
"in which order does the model apply its layers".
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.keras2.constraints import KeepPruned
from tf_synflow.keras2.imports import Functional, PruneLowMagnitude, keras
from tf_synflow.masks.types import Masks
from tf_synflow.network import Call, Graph, layer_weights


def check_model(model: Any) -> None:
    """Refuses what is not a built Sequential or functional tf_keras model.

    Args:
      model: Anything.

    Raises:
      TypeError: Not a `tf_keras` model: a Keras 3 model, a layer, a tensor, a name ...
      ValueError: A subclassed model, whose layers cannot be listed, or an unbuilt one.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(_not_a_model(model))
    if isinstance(model, keras.Sequential) and not model._is_graph_network:
        raise ValueError(
            f"model {model.name!r} has no input shape yet; give its first layer an "
            "`input_shape=`, or call `model.build((None, ...))` and see that it has "
            "symbolic inputs (`model.inputs`)"
        )
    if not getattr(model, "_is_graph_network", False):
        raise ValueError(
            f"model {model.name!r} is a subclassed model ({type(model).__name__}), "
            "whose layer calls cannot be listed; build it with the functional API, "
            "keras.Model(inputs, outputs), or keras.Sequential"
        )

    # A functional model of a class with a `call` of its own runs that, not its graph.
    if type(model).call not in (Functional.call, keras.Sequential.call):
        raise ValueError(
            f"model {model.name!r} is of the class {type(model).__name__}, which has a "
            "`call` of its own, so that its layer calls cannot be listed; build it "
            "with keras.Model(inputs, outputs) or keras.Sequential"
        )


def _not_a_model(model: Any) -> str:
    expected = "expected a built Sequential or functional tf_keras model"
    kind = f"{type(model).__module__}.{type(model).__qualname__}"
    if any(cls.__module__.split(".")[0] == "keras" for cls in type(model).__mro__):
        return (
            f"{expected}, got an object of Keras 3 ({kind}). tf_synflow and tfmot work "
            "with Keras 2: build the model with `import tf_keras as keras`, or set "
            "TF_USE_LEGACY_KERAS=1 in the environment before the first `import "
            "tensorflow` (importing tf_synflow first does so)"
        )
    if isinstance(model, keras.layers.Layer):
        return f"{expected}, got a single layer: {kind}, {model.name!r}"
    return f"{expected}, got {kind}: {str(model)[:80]!r}"


def flatten(model: Any) -> Graph:
    """Lists the layer calls of a model.

    Args:
      model: A built Sequential or functional tf_keras model, wrapped by tfmot or not.

    Returns:
      Its `Graph`.

    Raises:
      TypeError: See `check_model`.
      ValueError: See `check_model`.
    """
    check_model(model)
    shapes: dict[int, tuple[int | None, ...]] = {}

    def new(tensor: Any) -> int:
        number = len(shapes)
        shapes[number] = tuple(tensor.shape)
        return number

    inputs = tuple(new(tensor) for tensor in model.inputs)
    walk = _Walk(new, [], {}, [])
    outputs = _visit(model, "", inputs, walk)
    _check_names(walk.calls)
    input_shapes = tuple(shapes[number] for number in inputs)
    calls, nested = tuple(walk.calls), tuple(walk.nested)
    return Graph(inputs, input_shapes, calls, outputs, shapes, nested)


class _Walk(NamedTuple):
    """What the recursion over nested models shares."""

    new: Callable[[Any], int]
    calls: list[Call]
    names: dict[int, str]
    nested: list[tuple[Any, tuple[int, ...]]]


def _visit(
    model: Any, prefix: str, inputs: tuple[int, ...], walk: _Walk
) -> tuple[int, ...]:
    """Appends the calls of `model`, applied to `inputs`; gives its outputs."""
    numbers = dict(zip(map(id, model.inputs), inputs, strict=True))
    for node in _nodes(model):
        layer, wrapper = node.layer, None
        if isinstance(layer, PruneLowMagnitude):
            layer, wrapper = layer.layer, layer
        reads = tuple(numbers[id(t)] for t in tf.nest.flatten(node.keras_inputs))
        tensors = tf.nest.flatten(node.outputs)
        if isinstance(layer, keras.Model):
            check_model(layer)
            reads = _by_input(layer, node, numbers)
            walk.nested.append((layer, reads))
            gives = _visit(layer, f"{prefix}{layer.name}/", reads, walk)
        else:
            name = walk.names.setdefault(id(layer), prefix + layer.name)
            gives = tuple(walk.new(tensor) for tensor in tensors)
            walk.calls.append(Call(name, layer, wrapper, reads, gives, node))
        numbers.update(zip(map(id, tensors), gives, strict=True))
    return tuple(numbers[id(tensor)] for tensor in model.outputs)


def _by_input(model: Any, node: Any, numbers: dict[int, int]) -> tuple[int, ...]:
    """What a nested model reads, in the order of its inputs; a dict goes by name."""
    given = node.call_args[0] if node.call_args else None
    tensors = tf.nest.flatten(node.keras_inputs)
    if isinstance(given, dict):
        tensors = [given[name] for name in model.input_names]
    return tuple(numbers[id(tensor)] for tensor in tensors)


def _nodes(model: Any) -> Iterator[Any]:
    """The calls that Keras makes when it runs `model`, in its order."""
    by_depth = model._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if not node.is_input:
                yield node


def _check_names(calls: list[Call]) -> None:
    layers: dict[str, Any] = {}
    for call in calls:
        if layers.setdefault(call.name, call.layer) is not call.layer:
            raise ValueError(
                f"two layers of the model have the path {call.name!r}, so that their "
                "weights cannot be told apart; rename one of them"
            )


_KERNELS = {
    keras.layers.Dense: "kernel",
    keras.layers.Conv1D: "kernel",
    keras.layers.Conv2D: "kernel",
    keras.layers.Conv3D: "kernel",
    keras.layers.Conv2DTranspose: "kernel",
    keras.layers.Conv3DTranspose: "kernel",
    keras.layers.SeparableConv1D: "pointwise_kernel",
    keras.layers.SeparableConv2D: "pointwise_kernel",
}


def masked_weights(graph: Graph) -> dict[str, tuple[Any, Any]]:
    """Name to (weight variable, mask variable) of every pruned weight of a model.

    A mask is in the wrapper of its layer; or, where a plain model was pruned inside
    `fit`, in the constraint of the weight.
    """
    found = {}
    for call in graph.calls:
        wrapped = call.wrapper.pruning_vars if call.wrapper else ()
        masks = {id(weight): mask for weight, mask, _ in wrapped}
        for short, variable in layer_weights(call.layer).items():
            if isinstance(variable.constraint, KeepPruned):
                masks.setdefault(id(variable), variable.constraint.mask)
            if id(variable) in masks:
                found[f"{call.name}/{short}"] = (variable, masks[id(variable)])
    return found


def wrapped_weights(graph: Graph) -> set[int]:
    """The ids of the weights that a wrapper masks whenever its layer is called."""
    wrappers = [call.wrapper for call in graph.calls if call.wrapper is not None]
    return {id(weight) for w in wrappers for weight, _, _ in w.pruning_vars}


def masks_of(graph: Graph) -> Masks:
    """The masks of a model laid flat; none if nothing is pruned.

    They describe the weights as they are; see `revived`.
    """
    wrapped, masks = wrapped_weights(graph), {}
    for name, (weight, mask) in masked_weights(graph).items():
        masks[name] = mask.numpy().astype(bool)
        if id(weight) not in wrapped:
            masks[name] |= weight.numpy() != 0
    return masks


def revived(graph: Graph) -> int:
    """How many weights were pruned inside `fit` and are not zero now.

    A plain model computes with whatever is loaded into it, and weights from before
    pruning may be. A wrapper zeroes what its mask says before it uses a weight.
    """
    masks, pairs = masks_of(graph), masked_weights(graph)
    return sum(
        int(np.count_nonzero(masks[name] & (mask.numpy() == 0)))
        for name, (_, mask) in pairs.items()
    )


def prunable_weights(layer: Any) -> dict[str, Any]:
    """The weights of a layer that tfmot can mask.

    Args:
      layer: A built layer, no wrapper.

    Returns:
      Short name to variable; none if there are none.
    """
    if type(layer) in _KERNELS:
        own = [getattr(layer, _KERNELS[type(layer)])]
    elif hasattr(layer, "get_prunable_weights"):
        own = layer.get_prunable_weights()
    else:
        own = []
    wanted = {id(variable) for variable in own}
    return {s: v for s, v in layer_weights(layer).items() if id(v) in wanted}
