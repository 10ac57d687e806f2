"""Writes a saved model as a file that runs without Keras.

tf-synflow export --model=small.keras --output=small.tflite

An output without an ending is the folder of a SavedModel. The program runs what it has
written and compares it with Keras before it gives the file its name.
"""

import numpy as np
from absl import flags

import tf_synflow
from tf_synflow.commands import model_flags
from tf_synflow.commands.model_flags import named_model

flags.adopt_module_key_flags(model_flags)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Where to write: a .tflite or .onnx file, or a name without ending for the folder "
    "of a SavedModel.",
    required=True,
)
_DATA = flags.DEFINE_string(
    "data", None, "A .npy file of inputs to check with. Default: noise in [0, 1)."
)


def main(argv: list[str]) -> None:
    """Exports the model that the flags name."""
    data = None if _DATA.value is None else np.load(_DATA.value)
    model = named_model()
    print(tf_synflow.export(model, _OUTPUT.value, data))
