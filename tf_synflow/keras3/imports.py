"""The one place that imports Keras 3, with the private names that the adapter needs.

They were tried with Keras 3.15. Which backend Keras 3 has (TensorFlow, JAX, PyTorch) is
the user's choice, made before the first `import keras`; the adapter does not ask.
"""

import keras
from keras.src.layers.core.input_layer import InputLayer
from keras.src.models.functional import Functional, functional_like_constructor
from keras.src.ops.operation import Operation
from keras.src.saving.serialization_lib import SafeModeScope

__all__ = [
    "Functional",
    "InputLayer",
    "Operation",
    "SafeModeScope",
    "functional_like_constructor",
    "keras",
]
