"""Says what is left of a saved model.

python scripts/report.py --model=small.keras
"""

from pathlib import Path

from absl import app, flags
from plain_errors import in_one_line

import tf_synflow
from tf_synflow.files.models import load_model
from tf_synflow.files.whole import written_whole

_MODEL = flags.DEFINE_string(
    "model", None, ".keras or .h5 file, or folder of a SavedModel.", required=True
)
_IMPORT = flags.DEFINE_list("import", [], "Modules that register classes of your own.")
_JSON = flags.DEFINE_string("json", None, "File for the report as JSON.")
_PLOT = flags.DEFINE_string("plot", None, "File for the picture, .png or .svg.")


@in_one_line
def main(argv: list[str]) -> None:
    """Reports on the model that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    found = tf_synflow.report(load_model(_MODEL.value, _IMPORT.value))
    if _JSON.value:
        with written_whole(_JSON.value) as aside:
            Path(aside).write_text(found.to_json() + "\n", "utf-8")
    if _PLOT.value:
        found.plot(_PLOT.value)
    print(found)


if __name__ == "__main__":
    app.run(main)
