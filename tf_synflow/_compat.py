"""The one place that imports TensorFlow, Keras and tfmot.

tensorflow-model-optimization works with Keras 2 (`tf_keras`) only. TensorFlow decides
at its first use of `tf.keras` which Keras that name means, so the choice has to be in
the environment before anything else of TensorFlow is touched.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import tensorflow as tf  # noqa: E402
import tensorflow_model_optimization as tfmot  # noqa: E402
import tf_keras as keras  # noqa: E402
from tensorflow.lite.tools import flatbuffer_utils  # noqa: E402
from tensorflow.python.util import tf_decorator, tf_export  # noqa: E402
from tensorflow_model_optimization.python.core.sparsity.keras import (  # noqa: E402
    pruning_wrapper,
)
from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata  # noqa: E402
from tf_keras.src.applications import (  # noqa: E402
    convnext,
    inception_resnet_v2,
)
from tf_keras.src.engine.functional import Functional  # noqa: E402
from tf_keras.src.layers.core.tf_op_layer import (  # noqa: E402
    TFOpLambda as OperatorLayer,
)
from tf_keras.src.losses import LossFunctionWrapper  # noqa: E402
from tf_keras.src.saving.serialization_lib import (  # noqa: E402
    _retrieve_class_or_fn as keras_lookup,
)

PruneLowMagnitude = pruning_wrapper.PruneLowMagnitude

__all__ = [
    "Functional",
    "LossFunctionWrapper",
    "OperatorLayer",
    "PruneLowMagnitude",
    "SavedMetadata",
    "convnext",
    "deep_graphs",
    "flatbuffer_utils",
    "inception_resnet_v2",
    "keras",
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


@contextlib.contextmanager
def deep_graphs() -> Iterator[None]:
    """Lets Keras build functional models of more than a thousand layers in a row.

    Keras follows a graph by recursion, one frame a layer; Python's limit is 1,000.
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(max(limit, 100_000))
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
