"""A Keras model as the flat list of layer calls that it makes.

Nested models are laid flat, tfmot wrappers are looked through, and a layer that is
called twice gives two calls of one layer. Everything that walks a network (the linear
twin, the report, the names of the weights) walks this list, so there is one answer to
"in which order does the model apply its layers".
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tf_synflow._compat import Functional, PruneLowMagnitude, keras, tf


class Call(NamedTuple):
    """One application of a layer.

    Attributes:
      name: Path of the layer, nested models joined with "/" ("block1/conv1"). A layer
        that is called along several paths has the name of the first.
      layer: The layer itself, never a model and never a pruning wrapper.
      wrapper: The `PruneLowMagnitude` around the layer, or None.
      inputs: Numbers of the tensors it reads.
      outputs: Numbers of the tensors it gives.
      node: Keras's record of the call; its arguments are what an operator layer needs.
    """

    name: str
    layer: Any
    wrapper: Any
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    node: Any


class Graph(NamedTuple):
    """The calls of a model in the order in which it makes them.

    Attributes:
      inputs: Numbers of the model's input tensors.
      input_shapes: Their shapes, batch axis first and None.
      calls: The calls, each after those that it reads from.
      outputs: Numbers of the model's output tensors.
      shapes: Tensor number to shape, batch axis first and None.
      nested: Each call of a nested model: the model, and numbers of what it reads.
    """

    inputs: tuple[int, ...]
    input_shapes: tuple[tuple[int | None, ...], ...]
    calls: tuple[Call, ...]
    outputs: tuple[int, ...]
    shapes: dict[int, tuple[int | None, ...]]
    nested: tuple[tuple[Any, tuple[int, ...]], ...]


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


def layer_weights(layer: Any) -> dict[str, Any]:
    """The variables of a layer by their short names.

    Args:
      layer: A built layer, no wrapper.

    Returns:
      Short name ("kernel", "gamma", "moving_variance") to variable, in the layer's
      order. A name met again gets a number: "kernel", "kernel_1". Look-up tables, which
      Keras counts among the weights, are left out.
    """
    named: dict[str, Any] = {}
    for variable in layer.weights:
        if not hasattr(variable, "assign"):
            continue
        short = name = variable.name.split("/")[-1].split(":")[0]
        again = 0
        while name in named:
            again += 1
            name = f"{short}_{again}"
        named[name] = variable
    return named


def named_weights(graph: Graph) -> dict[str, Any]:
    """Name ("conv1/kernel") to variable of every weight, in the model's order."""
    return {
        f"{call.name}/{short}": variable
        for call in graph.calls
        for short, variable in layer_weights(call.layer).items()
    }
