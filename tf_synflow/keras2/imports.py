"""The one place that imports TensorFlow, Keras and tfmot.

tensorflow-model-optimization works with Keras 2 (`tf_keras`) only. TensorFlow decides
at its first use of `tf.keras` which Keras that name means, so the choice has to be in
the environment before anything else of TensorFlow is touched.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras as keras
from tensorflow.lite.tools import flatbuffer_utils
from tensorflow.python.util import tf_decorator, tf_export
from tensorflow_model_optimization.python.core.sparsity.keras import pruning_wrapper
from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata
from tf_keras.src.applications import convnext, inception_resnet_v2
from tf_keras.src.engine.functional import Functional
from tf_keras.src.layers.core.tf_op_layer import SlicingOpLambda as SlicingLayer
from tf_keras.src.layers.core.tf_op_layer import TFOpLambda as OperatorLayer
from tf_keras.src.losses import LossFunctionWrapper
from tf_keras.src.saving.serialization_lib import _retrieve_class_or_fn as keras_lookup
from tf_keras.src.saving.serialization_lib import (
    in_tf_saved_model_scope as reads_old_format,
)

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


PruneLowMagnitude = pruning_wrapper.PruneLowMagnitude


__all__ = [
    "Functional",
    "LossFunctionWrapper",
    "OperatorLayer",
    "PruneLowMagnitude",
    "SlicingLayer",
    "SavedMetadata",
    "convnext",
    "deep_graphs",
    "flatbuffer_utils",
    "inception_resnet_v2",
    "keras",
    "reads_old_format",
    "keras_lookup",
    "tf",
    "tfmot",
    "unwrapped_symbol",
]


def unwrapped_symbol(name: str) -> Any:
    """What a public name of TensorFlow's or Keras's stands for, without decorators.

    Args:
      name: For example "math.add" or "keras.backend.mean".

    Returns:
      A function or class; None if there is none.
    """
    found = tf_export.get_symbol_from_name(name)
    return None if found is None else tf_decorator.unwrap(found)[1]


_deep_lock = threading.Lock()


_deep_limits: list[int] = []  # the limits that threads need at the moment


_usual_limit = 0  # what it was before the first of them


@contextlib.contextmanager
def deep_graphs(layers: int = 10_000) -> Iterator[None]:
    """Lets Keras build a functional model of very many layers in a row.

    Keras follows a graph by recursion, one frame a layer; Python's limit is 1,000. For
    a smaller model the limit stays as it is. Python has one limit for all threads, so
    for a large model it is higher for all of them meanwhile; the last thread that needs
    it puts it back.

    Args:
      layers: A bound of the calls of layers in a row. Defaults to 10,000.
    """
    global _usual_limit
    frame, need = sys._getframe(), layers + 500
    while frame := frame.f_back:
        need += 1
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
