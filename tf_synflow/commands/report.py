"""Says what is left of a saved model.

tf-synflow report --model=small.keras --html=report.html
"""

from absl import flags

import tf_synflow
from tf_synflow.commands import model_flags
from tf_synflow.commands.model_flags import named_model
from tf_synflow.files.whole import write_text

flags.adopt_module_key_flags(model_flags)
_JSON = flags.DEFINE_string("json", None, "Also write the report to this JSON file.")
_PLOT = flags.DEFINE_string(
    "plot", None, "Also draw the densities to this file, .png or .svg."
)
_HTML = flags.DEFINE_string(
    "html", None, "Also write the report as a page to this file, .html."
)


def main(argv: list[str]) -> None:
    """Reports on the model that the flags name."""
    found = tf_synflow.report(named_model())
    if _JSON.value:
        write_text(_JSON.value, found.to_json() + "\n")
    if _PLOT.value:
        found.plot(_PLOT.value)
    if _HTML.value:
        found.to_html(_HTML.value)
    print(found)
