"""A Keras model as data: its layer calls, weights and masks, read once."""

from typing import Any, NamedTuple


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
