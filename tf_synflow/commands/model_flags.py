"""The flags for a saved model that `prune`, `report` and `export` share."""

from typing import Any

from absl import flags

from tf_synflow.files.models import load_model

_MODEL = flags.DEFINE_string(
    "model",
    None,
    "The model: a .keras or .h5 file, or the folder of a SavedModel.",
    required=True,
)
_IMPORT = flags.DEFINE_list(
    "import", [], "Python modules to import first, which register your own layers."
)


def named_model() -> Any:
    """The model that the flags name; see `load_model` for the errors."""
    return load_model(_MODEL.value, _IMPORT.value)
