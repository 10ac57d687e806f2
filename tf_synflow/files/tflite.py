"""TFLite files: written dense and sparse, repaired where TFLite is wrong, and run."""

import contextlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.lite.tools import flatbuffer_utils

from tf_synflow.checks import first_line

_FULLY_CONNECTED, _DENSIFY = 9, 124  # numbers of TFLite's operators


def convert(folder: Path) -> tuple[bytes, bytes]:
    """Converts a SavedModel to two TFLite files: a sparse one and a dense one."""
    dense = _converted(folder, [])
    sparse = _converted(folder, [tf.lite.Optimize.EXPERIMENTAL_SPARSITY])
    return _with_whole_blocks(sparse, dense), dense


def _with_whole_blocks(sparse: bytes, dense: bytes) -> bytes:
    """Stores a kernel dense where TFLite's sparse encoding of it is wrong.

    For a Dense layer, TFLite may store blocks of 4 inputs. It mixes up the kernel if
    the number of inputs is no multiple of 4, for example 1 to 3.
    """
    right = flatbuffer_utils.convert_bytearray_to_object(bytearray(dense))
    model = flatbuffer_utils.convert_bytearray_to_object(bytearray(sparse))
    changed = False
    for graph, twin in zip(model.subgraphs, right.subgraphs, strict=True):
        # A sparse file has the same operators as a dense one, and some that unpack
        # weights.
        operators = [
            operator
            for operator in graph.operators
            if _code(model, operator) != _DENSIFY
        ]
        if len(operators) != len(twin.operators):
            return sparse
        for operator, other in zip(operators, twin.operators, strict=True):
            if _code(model, operator) != _FULLY_CONNECTED:
                continue
            tensor, whole = (
                graph.tensors[operator.inputs[1]],
                twin.tensors[other.inputs[1]],
            )
            if not _broken_blocks(tensor):
                continue
            tensor.sparsity = None
            tensor.buffer = len(model.buffers)
            model.buffers.append(right.buffers[whole.buffer])
            changed = True
    if not changed:
        return sparse
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def _code(model: Any, operator: Any) -> int:
    return model.operatorCodes[operator.opcodeIndex].builtinCode


def _broken_blocks(tensor: Any) -> bool:
    if tensor.sparsity is None or not len(tensor.sparsity.blockMap):
        return False
    blocks = tensor.sparsity.dimMetadata[len(tensor.shape) :]
    return any(
        tensor.shape[axis] % block.denseSize
        for axis, block in zip(tensor.sparsity.blockMap, blocks, strict=True)
    )


def _converted(folder: Path, optimizations: list) -> bytes:
    converter = tf.lite.TFLiteConverter.from_saved_model(str(folder))
    converter.optimizations = optimizations
    with _explained():
        return converter.convert()


def run(file: bytes, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of a TFLite file, by name."""
    with warnings.catch_warnings(), _explained():
        # TensorFlow announces that its interpreter moves to another package.
        warnings.filterwarnings("ignore", message=".*tf.lite.Interpreter is deprecated")
        interpreter = tf.lite.Interpreter(model_content=file)
        return interpreter.get_signature_runner("serving_default")(**inputs)


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turns an error of TFLite into one that says what to do."""
    try:
        yield
    # The converter and the interpreter raise several classes of errors.
    except Exception as error:
        raise ValueError(
            f"TFLite cannot express this model ({type(error).__name__}: "
            f"{first_line(error)}). A path without an ending writes a SavedModel, "
            "which supports far more operations"
        ) from error
