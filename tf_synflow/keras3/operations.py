"""Operations of Keras 3 (x + y, keras.ops.relu(x)) as operators of TensorFlow.

Keras 3 records an operation with its settings as attributes: `ops.mean(x, axis=1)` is
an object `Mean` with `axis` 1. Here each operation is translated into the TensorFlow
function that computes the same, and its arguments. Models of Keras 2 have only
operators of TensorFlow, so there are rules for these operators: for their linear parts,
their channels, and how to run them. The translation makes the same rules serve Keras 3
too.
"""

from typing import Any

from tf_synflow.keras3.translations import Translated


class Operator:
    """Stands for an operation, in the place of a layer.

    Attributes:
      name: Name of the operation in its model.
      title: What the user wrote ("keras.ops.relu"), for messages.
      symbol: See `Translated`; the title, if there is no translation.
      function: See `Translated`.
    """

    weights: tuple = ()
    activity_regularizer = None

    def __init__(self, operation: Any, translated: Translated | None):
        """Makes the stand-in."""
        self.operation = operation
        self.name = operation.name
        self.title = _title(operation)
        self.symbol = translated.symbol if translated else self.title
        self.function = translated.function if translated else self._refused

    def call(self, *arguments: Any, **options: Any) -> Any:
        """Computes the operation with TensorFlow."""
        return self.function(*arguments, **options)

    def _refused(self, *arguments: Any, **options: Any) -> Any:
        # Rules look for the translation first, so this is never called.
        raise NotImplementedError(f"{self.title} has no counterpart in TensorFlow here")


def kind_of(operator: Operator) -> str:
    """The kind of a call: "tf." and the name in TensorFlow, or the operator's title."""
    if operator.symbol == operator.title:
        return operator.title
    return f"tf.{operator.symbol}"


def _title(operation: Any) -> str:
    """`keras.ops.true_divide` for an object of the class `TrueDivide`."""
    name = type(operation).__name__
    words = "".join(f"_{c.lower()}" if c.isupper() else c for c in name)
    return f"keras.ops.{words.lstrip('_')}"
