"""Writes a saved model as a file that runs without Keras.

python scripts/export.py --model=small.keras --output=small.tflite

An output without an ending is the folder of a SavedModel. What is written is run and
compared with Keras before it is given its name.
"""

import numpy as np
from absl import app, flags
from plain_errors import in_one_line

import tf_synflow
from tf_synflow.files.models import load_model

_MODEL = flags.DEFINE_string(
    "model", None, ".keras or .h5 file, or folder of a SavedModel.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Where to: .tflite, or no ending for SavedModel.", required=True
)
_DATA = flags.DEFINE_string(
    "data", None, ".npy file of inputs to check with. Default: noise in [0, 1)."
)
_IMPORT = flags.DEFINE_list("import", [], "Modules that register classes of your own.")


@in_one_line
def main(argv: list[str]) -> None:
    """Exports the model that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    data = None if _DATA.value is None else np.load(_DATA.value)
    model = load_model(_MODEL.value, _IMPORT.value)
    print(tf_synflow.export(model, _OUTPUT.value, data))


if __name__ == "__main__":
    app.run(main)
