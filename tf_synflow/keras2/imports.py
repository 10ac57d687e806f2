"""The one place that imports tf_keras and tfmot, without side effects.

tfmot works with Keras 2 (`tf_keras`) only, and sets TF_USE_LEGACY_KERAS=1 when it is
imported. TensorFlow decides at the first use of `tf.keras` which Keras that name means.
So this module uses the name before it imports tfmot: then the name means what the user
has chosen. Afterwards the module resets the variable, because child processes inherit
it.
"""

import os

import tensorflow as tf

_VARIABLE = "TF_USE_LEGACY_KERAS"
_before = os.environ.get(_VARIABLE)
if _before is None:
    _ = (tf.keras.layers, tf.compat.v2.keras.layers)
try:
    import tensorflow_model_optimization as tfmot
    import tf_keras as keras
    from tensorflow_model_optimization.python.core.sparsity.keras import (
        pruning_wrapper,
    )
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata
    from tf_keras.src.engine.functional import Functional
    from tf_keras.src.losses import LossFunctionWrapper
    from tf_keras.src.saving.serialization_lib import (
        _retrieve_class_or_fn as keras_lookup,
    )
    from tf_keras.src.saving.serialization_lib import (
        in_tf_saved_model_scope as reads_old_format,
    )
finally:
    if _before is None:
        os.environ.pop(_VARIABLE, None)

TfmotWrapper = pruning_wrapper.PruneLowMagnitude

__all__ = [
    "Functional",
    "LossFunctionWrapper",
    "SavedMetadata",
    "TfmotWrapper",
    "keras",
    "keras_lookup",
    "reads_old_format",
    "tfmot",
]
