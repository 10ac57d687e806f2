"""A Keras model as data: its layer calls, weights and masks, read once.

Nested models are flattened. A layer that is called twice appears as two calls, both of
the same layer. All code that goes through a network (the linear twin, the channels, the
report, the names of the weights) goes through this list of calls. So the order in which
the model applies its layers is the same everywhere. `frameworks.read` turns a Keras
model into a `Network`. Only the adapters need to know which Keras the model came from.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

Shape = tuple[int | None, ...]


class Slot:
    """Takes the place of a tensor among the arguments of a call.

    Attributes:
      number: The tensor's number in the network.
    """

    # Not a tuple: functions that go through nested arguments would take a tuple apart.
    __slots__ = ("number",)

    def __init__(self, number: int):
        """Makes the stand-in for tensor `number`."""
        self.number = number

    def __repr__(self) -> str:
        """The tensor's number."""
        return f"Slot({self.number})"


class Call(NamedTuple):
    """One application of a layer.

    Attributes:
      name: Path of the layer, nested models joined with "/" ("block1/conv1"). A layer
        that is called along several paths has the name of the first.
      kind: The framework's name of the layer's class ("Conv2D") or of the operator
        ("tf.nn.relu"), by which rules are looked up. None for a class of the user's
        own.
      layer: The layer itself, never a model and never a pruning wrapper.
      weights: The layer's variables by their short names ("kernel", "query/kernel"), in
        the layer's order.
      inputs: Numbers of the tensors that the call reads.
      outputs: Numbers of the tensors that the call returns.
      arguments: The positional arguments of the call; each tensor is a `Slot`.
      options: The keyword arguments of the call; each tensor is a `Slot`.
      wrapper: The object that holds the layer's masks in the model, or None. Only the
        adapter that has read the model knows the type of this object.
    """

    name: str
    kind: str | None
    layer: Any
    weights: dict[str, Any]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    arguments: tuple[Any, ...]
    options: dict[str, Any]
    wrapper: Any

    @property
    def class_name(self) -> str:
        """The name of the layer's class, for messages."""
        return type(self.layer).__name__


class Nested(NamedTuple):
    """A call of a nested model.

    Attributes:
      model: The model.
      inputs: Numbers of the tensors that the model reads, in the order of its inputs.
    """

    model: Any
    inputs: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """The calls of a model, in the order in which the model makes them.

    Attributes:
      model: The Keras model that was read.
      calls: The calls, each after the calls whose outputs it reads.
      inputs: Numbers of the model's input tensors.
      outputs: Numbers of the model's output tensors.
      shapes: Tensor number to shape; the batch axis comes first and is None.
      dtypes: Tensor number to the name of its type ("float32").
      nested: The calls of nested models.
      weights: Name ("conv1/kernel") to variable of every weight, in the model's order.
      prunable: Names of the weights that are pruned by default, in the model's order.
      on_request: Names of the weights that are pruned only if `layer_types` names the
        classes of their layers.
      masks: Name to boolean array of each pruned weight; empty if nothing is pruned.
        The masks describe the weights as they are now.
      revived: How many weights were pruned inside `fit` but are not zero now, because
        weights from before pruning were loaded.
    """

    model: Any
    calls: tuple[Call, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    shapes: dict[int, Shape]
    dtypes: dict[int, str]
    nested: tuple[Nested, ...]
    weights: dict[str, Any]
    prunable: tuple[str, ...]
    on_request: tuple[str, ...] = ()
    masks: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    revived: int = 0

    @property
    def name(self) -> str:
        """The name of the model."""
        return self.model.name

    @property
    def input_shapes(self) -> tuple[Shape, ...]:
        """The shapes of the model's inputs; the batch axis comes first and is None."""
        return tuple(self.shapes[number] for number in self.inputs)

    @functools.cached_property
    def maskable(self) -> tuple[str, ...]:
        """Names of all weights that can have a mask, in the model's order."""
        able = {*self.prunable, *self.on_request}
        return tuple(name for name in self.weights if name in able)

    @functools.cached_property
    def owners(self) -> dict[str, Call]:
        """Name of a weight to the first call of the weight's layer."""
        return {
            f"{name}/{short}": call
            for name, call in self.layers().items()
            for short in call.weights
        }

    def layers(self) -> dict[str, Call]:
        """Path to the first call of each layer."""
        found: dict[str, Call] = {}
        for call in self.calls:
            found.setdefault(call.name, call)
        return found


def assembled(
    calls: Iterable[Call],
    prunable: Callable[[Any], Iterable[str]],
    on_request: Callable[[Any], Iterable[str]],
    **others: Any,
) -> Network:
    """Makes a network of calls: finds and names the weights.

    Args:
      calls: The calls, in the order in which the model makes them.
      prunable: Function from a layer to the short names of the weights that are pruned
        by default.
      on_request: The same for the weights that are pruned only if `layer_types` names
        the layer's class.
      **others: The other attributes of the `Network`.

    Raises:
      ValueError: Two layers have the same path.
    """
    calls, layers = tuple(calls), {}
    for call in calls:
        first = layers.setdefault(call.name, call)
        # Each call of an operation of Keras 3 has a stand-in of its own.
        one, other = (getattr(c.layer, "operation", c.layer) for c in (first, call))
        if one is not other:
            raise ValueError(
                f"two layers of the model have the path {call.name!r}, so that their "
                "weights cannot be told apart; rename one of them"
            )
    return Network(
        calls=calls,
        weights={
            f"{name}/{short}": variable
            for name, call in layers.items()
            for short, variable in call.weights.items()
        },
        **{
            key: tuple(
                f"{name}/{short}"
                for name, call in layers.items()
                for short in shorts(call.layer)
            )
            for key, shorts in (("prunable", prunable), ("on_request", on_request))
        },
        **others,
    )


def check_ties(network: Network, variable_class: type) -> None:
    """Refuses layers that compute with a weight of another layer.

    Args:
      network: The network.
      variable_class: The class of the variables to look for among arguments of calls.

    Raises:
      ValueError: A call is given a variable as an argument, or layers share a weight. A
        copy of the model would not be tied as the model is.
    """
    owners: dict[int, str] = {}
    for call in network.calls:
        for argument in _parts((call.arguments, call.options)):
            if isinstance(argument, variable_class):
                raise ValueError(
                    f"{call.name!r} is given the variable {argument.name!r} as an "
                    "argument. A copy of the model would go on using it, or a constant "
                    "in its place. Make it a layer of your own that has this weight "
                    "(add_weight in its build)"
                )
        for short, variable in call.weights.items():
            owner = owners.setdefault(id(variable), call.name)
            if owner != call.name:
                raise ValueError(
                    f"layers {owner!r} and {call.name!r} share the weight {short!r}. "
                    "tf_synflow does not support tied weights: a copy of the model "
                    f"would not be tied. Give {call.name!r} a weight of its own"
                )


def _parts(structure: Any) -> Iterator[Any]:
    """The entries of a nested structure of lists, tuples and dictionaries."""
    if isinstance(structure, Mapping):
        structure = list(structure.values())
    if isinstance(structure, (list, tuple)):
        for part in structure:
            yield from _parts(part)
    else:
        yield structure


def filled(argument: Any, tensors: Mapping[int, Any]) -> Any:
    """The arguments of a call with tensors in the places of its `Slot`s."""
    return mapped(lambda slot: tensors[slot.number], argument)


def mapped(function: Callable[[Slot], Any], argument: Any) -> Any:
    """The same structure of lists, tuples and dictionaries; each `Slot` is replaced."""
    if isinstance(argument, Slot):
        return function(argument)
    if isinstance(argument, Mapping):
        return {key: mapped(function, value) for key, value in argument.items()}
    if isinstance(argument, (list, tuple)) and type(argument) in (list, tuple):
        return type(argument)(mapped(function, part) for part in argument)
    return argument


def is_operator(call: Call) -> bool:
    """Whether a call is of an operator (x + y, tf.nn.relu(x)) and not of a layer."""
    return (call.kind or "").startswith(("tf.", "keras.ops."))
