"""The one place that imports Keras 3, with the private names that the adapter needs.

The private names were tried with Keras 3.12 and 3.15. The user chooses the backend of
Keras 3 (TensorFlow, JAX, PyTorch), before the first `import keras`.
"""

import keras
from keras.src.layers.core.input_layer import InputLayer
from keras.src.models.functional import Functional
from keras.src.ops.operation import Operation
from keras.src.saving.serialization_lib import SafeModeScope

__all__ = [
    "Functional",
    "InputLayer",
    "Operation",
    "SafeModeScope",
    "keras",
]
