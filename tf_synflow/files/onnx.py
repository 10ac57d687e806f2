"""ONNX files of Keras 3 models: written by Keras, and run by ONNX Runtime."""

import contextlib
import importlib.util
import io
import logging
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tf_synflow.checks import first_line

# Backend to the package with which Keras writes the file.
_WRITERS = {"tensorflow": "tf2onnx", "torch": "onnxscript"}


def check(model: Any) -> None:
    """Checks that a model can be written as ONNX here.

    Args:
      model: A Keras model.

    Raises:
      ValueError: The model is of Keras 2, or Keras does not write ONNX on its backend.
      ModuleNotFoundError: A package is missing.
    """
    if not any(cls.__module__[:6] == "keras." for cls in type(model).__mro__):
        raise ValueError(
            "ONNX files are written by Keras 3, and this model is one of Keras 2. "
            "Export a SavedModel (a path without an ending), and convert that: "
            "python -m tf2onnx.convert --saved-model folder --output model.onnx"
        )
    import keras

    backend = keras.backend.backend()
    if backend not in _WRITERS:
        raise ValueError(
            f"Keras writes no ONNX files on the backend {backend}; save the model, "
            "load it with KERAS_BACKEND=tensorflow, and export it there"
        )
    needed = ("onnx", "onnxruntime", _WRITERS[backend])
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise ModuleNotFoundError(
            f"to write and check ONNX files, install {', '.join(missing)}: "
            "pip install 'tf_synflow[onnx]'"
        )


def write(model: Any, path: Path) -> None:
    """Writes a model, which must have been called before, as an ONNX file.

    Raises:
      ValueError: ONNX cannot express the model.
    """
    try:
        with _quiet():
            model.export(str(path), format="onnx", verbose=False)
    # The packages that write ONNX have many classes of errors of their own.
    except Exception as error:
        raise ValueError(
            f"ONNX cannot express this model ({type(error).__name__}: "
            f"{first_line(error)}). A path without an ending writes a SavedModel"
        ) from error


def run(path: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of an ONNX file: `output_0`, `output_1` and so on."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path.read_bytes())
    names = [tensor.name for tensor in session.get_inputs()]
    # The packages that write ONNX may spell the names differently, but keep the order.
    by_name = inputs if set(names) == set(inputs) else None
    given = by_name or dict(zip(names, inputs.values(), strict=True))
    outputs = session.run(None, given)
    return {f"output_{i}": output for i, output in enumerate(outputs)}


@contextlib.contextmanager
def _quiet() -> Any:
    """Hides the messages of the packages that write ONNX."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
