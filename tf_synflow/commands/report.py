"""Says what is left of a saved model.

tf-synflow report --model=small.keras
"""

from absl import flags

import tf_synflow
from tf_synflow.files.models import load_model
from tf_synflow.files.whole import write_text

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "The model: a .keras or .h5 file, or the folder of a SavedModel.",
    required=True,
)
_IMPORT = flags.DEFINE_list(
    "import", [], "Python modules to import first, which register your own layers."
)
_JSON = flags.DEFINE_string("json", None, "Also write the report to this JSON file.")
_PLOT = flags.DEFINE_string(
    "plot", None, "Also draw the densities to this file, .png or .svg."
)


def main(argv: list[str]) -> None:
    """Reports on the model that the flags name."""
    found = tf_synflow.report(load_model(_MODEL.value, _IMPORT.value))
    if _JSON.value:
        write_text(_JSON.value, found.to_json() + "\n")
    if _PLOT.value:
        found.plot(_PLOT.value)
    print(found)
