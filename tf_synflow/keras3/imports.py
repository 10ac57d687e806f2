"""The one place that imports Keras 3, with the private names that the adapter needs.

They were tried with Keras 3.12 and 3.15. Which backend Keras 3 has (TensorFlow, JAX,
PyTorch) is the user's choice, made before the first `import keras`.
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
