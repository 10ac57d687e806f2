"""Prunes a saved model without training it.

python scripts/prune.py --model=big.keras --output=pruned.keras --ratio=10

Beside the pruned model, <output>.masks.npz has the masks and <output>.report.json the
report. The model keeps its pruning wrappers, so that PruningCallback can keep it sparse
while it is trained; --strip writes a plain one, with zeros.
"""

from absl import app, flags
from plain_errors import in_one_line

import tf_synflow
from tf_synflow.criteria import DATA_FREE
from tf_synflow.files.models import checked_output, load_model, save_model
from tf_synflow.files.whole import written_whole
from tf_synflow.masks import counts as masks
from tf_synflow.policy.collapse import ACTIONS

_MODEL = flags.DEFINE_string(
    "model", None, ".keras or .h5 file, or folder of a SavedModel.", required=True
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Where to: .keras, .h5, or no ending for SavedModel.", required=True
)
_RATIO = flags.DEFINE_float(
    "ratio",
    None,
    ">= 1: prunable over kept weights; below 1: fraction removed.",
    required=True,
)
_CRITERION = flags.DEFINE_enum("criterion", "synflow", DATA_FREE, "Scores by.")
_ITERATIONS = flags.DEFINE_integer(
    "iterations", None, "How often to score and remove. Default: the criterion's own."
)
_SCOPE = flags.DEFINE_enum("scope", "global", masks.SCOPES, "What is ranked together.")
_EXCLUDE = flags.DEFINE_list(
    "exclude", [], "Layers, nested models and patterns (base/*) to leave alone."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seeds the criterion random.")
_ON_COLLAPSE = flags.DEFINE_enum(
    "on_collapse", "warn", ACTIONS, "If nothing is left of a layer."
)
_STRIP = flags.DEFINE_bool("strip", False, "Write a plain model, without wrappers.")
_IMPORT = flags.DEFINE_list("import", [], "Modules that register classes of your own.")


@in_one_line
def main(argv: list[str]) -> None:
    """Prunes the model that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    output = checked_output(_OUTPUT.value)
    pruned = tf_synflow.prune(
        load_model(_MODEL.value, _IMPORT.value),
        _RATIO.value,
        criterion=_CRITERION.value,
        iterations=_ITERATIONS.value,
        scope=_SCOPE.value,
        exclude=_EXCLUDE.value,
        seed=_SEED.value,
        on_collapse=_ON_COLLAPSE.value,
    )
    found = tf_synflow.report(pruned)
    tf_synflow.save_masks(f"{output}.masks.npz", tf_synflow.get_masks(pruned))
    with written_whole(f"{output}.report.json") as aside:
        aside.write_text(found.to_json() + "\n", "utf-8")
    # The model last: where it is, the others are too.
    save_model(output, tf_synflow.strip(pruned) if _STRIP.value else pruned)
    print(found)


if __name__ == "__main__":
    app.run(main)
