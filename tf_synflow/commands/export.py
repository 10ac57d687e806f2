"""Writes a saved model as a file that runs without Keras.

tf-synflow export --model=small.keras --output=small.tflite

An output without an ending is the folder of a SavedModel. The program runs what it has
written and compares it with Keras before it gives the file its name.
"""

import numpy as np
from absl import flags

import tf_synflow
from tf_synflow.files.models import load_model

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "The model: a .keras or .h5 file, or the folder of a SavedModel.",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Where to write: a .tflite file, or a name without ending for a SavedModel.",
    required=True,
)
_DATA = flags.DEFINE_string(
    "data", None, "A .npy file of inputs to check with. Default: noise in [0, 1)."
)
_IMPORT = flags.DEFINE_list(
    "import", [], "Python modules to import first, which register your own layers."
)


def main(argv: list[str]) -> None:
    """Exports the model that the flags name."""
    data = None if _DATA.value is None else np.load(_DATA.value)
    model = load_model(_MODEL.value, _IMPORT.value)
    print(tf_synflow.export(model, _OUTPUT.value, data))
