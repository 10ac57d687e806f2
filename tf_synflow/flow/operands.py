"""What a call of an operator reads: signals, numbers and constants."""

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.network import Call, Network, Shape, Slot, filled, is_operator


def short_name(call: Call) -> str:
    """The operator's name ("nn.relu"), the same in TensorFlow 1 and 2 and Keras 3."""
    return call.kind.removeprefix("tf.")


def is_tensor(argument: Any) -> bool:
    """Whether an argument is a tensor of the model: a signal or a number."""
    return isinstance(argument, Slot)


class Operands:
    """What a call reads, with the twin's tensors put in place of the model's.

    Attributes:
      call: The call.
      signals: The tensors that the call reads, in order, without the numbers.
      arguments: For an operator, argument name to value; {} for any other layer.
    """

    def __init__(self, network: Network, call: Call, numbers: Collection[int]):
        """Reads a call; `operators.rule_of` describes the arguments."""
        self.call = call
        self._network = network
        self._numbers = numbers
        self.signals = [number for number in call.inputs if number not in numbers]
        self.arguments: dict[str, Any] = {}
        if is_operator(call):
            self.arguments = self._bound().arguments

    def _bound(self) -> inspect.BoundArguments:
        signature = inspect.signature(self.call.layer.function)
        bound = signature.bind(*self.call.arguments, **self.call.options)
        bound.arguments.pop("name", None)
        return bound

    def is_signal(self, argument: Any) -> bool:
        """Whether an argument is one of the signals."""
        return isinstance(argument, Slot) and argument.number not in self._numbers

    def parts(self, *names: str) -> list[Any]:
        """The arguments with these names in one list; lists of tensors are unpacked."""
        parts: list[Any] = []
        for name in names:
            value = self.arguments.get(name)
            if isinstance(value, (list, tuple)) and any(map(is_tensor, value)):
                parts.extend(value)
            elif value is not None:
                parts.append(value)
        return parts

    def channels_first(self) -> bool:
        """Whether the arguments say that the channels come first."""
        return str(self.arguments.get("data_format") or "").startswith("NC")

    def placed(self, structure: Any, inputs: Any) -> Any:
        """A structure of arguments, with the twin's tensors in place of the model's."""
        return filled(
            structure, dict(zip(self.call.inputs, tf.nest.flatten(inputs), strict=True))
        )

    def sizes(self, part: Any, inputs: Any, dtype: Any) -> Any:
        """A signal as it is; a constant or a number as its absolute value."""
        value = self.placed(part, inputs)
        if self.is_signal(part):
            return value
        if not (tf.is_tensor(value) or isinstance(value, tf.Variable)):
            value = np.asarray(value, "float64")  # TensorFlow would take float32
        return tf.abs(tf.cast(value, dtype))

    def without_offset(self, part: Any, inputs: Any, dtype: Any) -> Any:
        """A signal as it is; a constant or a number as zeros of its shape."""
        value = self.sizes(part, inputs, dtype)
        return value if self.is_signal(part) else tf.zeros_like(value)

    def dtype(self, inputs: Any) -> Any:
        """The type that the twin computes in."""
        return self.placed(Slot(self.signals[0]), inputs).dtype

    def dtype_of(self, number: int) -> str:
        """The type of a tensor in the model."""
        return self._network.dtypes[number]

    def shape_of(self, number: int) -> Shape:
        """The shape of a tensor in the model; the batch axis is first and None."""
        return self._network.shapes[number]

    def applied(self, inputs: Any, changed: Mapping[str, Any] | None = None) -> Any:
        """Calls the operator on the twin's tensors, with the `changed` arguments."""
        bound = self._bound()
        for name, value in bound.arguments.items():
            bound.arguments[name] = self.placed(value, inputs)
        bound.arguments.update(changed or {})
        return self.call.layer.call(*bound.args, **bound.kwargs)
