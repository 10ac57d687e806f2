"""The one place that imports TensorFlow, Keras and tfmot.

tensorflow-model-optimization works with Keras 2 (`tf_keras`) only. TensorFlow decides
at its first use of `tf.keras` which Keras that name means, so the choice has to be in
the environment before anything else of TensorFlow is touched.
"""

import contextlib
import os
import sys
from collections.abc import Iterator

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

import tensorflow as tf  # noqa: E402
import tensorflow_model_optimization as tfmot  # noqa: E402
import tf_keras as keras  # noqa: E402
from tensorflow_model_optimization.python.core.sparsity.keras import (  # noqa: E402
    pruning_wrapper,
)
from tf_keras.src.applications import (  # noqa: E402
    convnext,
    inception_resnet_v2,
)
from tf_keras.src.engine.functional import Functional  # noqa: E402
from tf_keras.src.layers.core.tf_op_layer import (  # noqa: E402
    SlicingOpLambda as SlicingLayer,
)
from tf_keras.src.layers.core.tf_op_layer import (  # noqa: E402
    TFOpLambda as OperatorLayer,
)
from tf_keras.src.losses import LossFunctionWrapper  # noqa: E402

PruneLowMagnitude = pruning_wrapper.PruneLowMagnitude

__all__ = [
    "Functional",
    "LossFunctionWrapper",
    "OperatorLayer",
    "PruneLowMagnitude",
    "SlicingLayer",
    "convnext",
    "deep_graphs",
    "inception_resnet_v2",
    "keras",
    "tf",
    "tfmot",
]


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
