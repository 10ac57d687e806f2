"""What both adapters need to copy a model, or to turn it into a function."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Rebuilt(NamedTuple):
    """A copy of a model.

    Attributes:
      model: The new model, uncompiled.
      weights: Name to variable of every weight in it, named as in the original.
    """

    model: Any
    weights: dict[str, Any]


class InitialValues:
    """Saves the time to draw initial values that are overwritten right after.

    For VGG-16, drawing them takes a third of the time of a copy.
    """

    def __init__(self, zeros: Any):
        """Takes an initializer of Keras that gives zeros, and so draws nothing."""
        self._zeros = zeros
        self._spared: list[tuple[Any, dict[str, Any]]] = []

    def spare(self, layer: Any) -> None:
        """Makes the kernels of a layer of Keras, not built yet, begin at 0."""
        own = {
            name: value
            for name, value in vars(layer).items()
            if name.endswith(("kernel_initializer", "embeddings_initializer"))
        }
        self._spared.append((layer, own))
        for name in own:
            setattr(layer, name, self._zeros)

    def restore(self) -> None:
        """Gives the layers their own initializers back, which their config includes."""
        for layer, own in self._spared:
            for name, value in own.items():
                setattr(layer, name, value)


class Servable(NamedTuple):
    """A model as a function of TensorFlow, to write a file from.

    Attributes:
      names: Names of the model's inputs.
      specs: A `tf.TensorSpec` for each input.
      variables: The TensorFlow variables of the model.
      function: Function from a list of inputs to the list of outputs, in inference
        mode.
    """

    names: list[str]
    specs: list[Any]
    variables: list[Any]
    function: Callable[[list[Any]], list[Any]]


_deep_lock = threading.Lock()
_deep_limits: list[int] = []  # the limits that threads need at the moment
_usual_limit = 0  # the limit before the first of these threads


@contextlib.contextmanager
def deep_graphs(layers: int = 10_000) -> Iterator[None]:
    """Lets Keras build a functional model of very many layers in a row.

    Keras follows a graph by recursion, one frame for each layer; Python's limit is
    1,000 frames. For a smaller model the limit stays as it is. Python has one limit for
    all threads. So while a large model is built, the limit is higher for all threads.
    The last thread that needs the higher limit restores the usual one.

    Args:
      layers: The largest number of layer calls in a row. Defaults to 10,000.
    """
    global _usual_limit
    frame, need = sys._getframe().f_back, layers + 500
    while frame is not None:
        frame, need = frame.f_back, need + 1
    with _deep_lock:
        if not _deep_limits:
            _usual_limit = sys.getrecursionlimit()
        _deep_limits.append(need)
        sys.setrecursionlimit(max([_usual_limit, *_deep_limits]))
    try:
        yield
    finally:
        with _deep_lock:
            _deep_limits.remove(need)
            sys.setrecursionlimit(max([_usual_limit, *_deep_limits]))
