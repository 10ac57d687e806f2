"""Prunes a saved model without training it.

tf-synflow prune --model=big.keras --output=pruned.keras --ratio=10

The program also writes the masks to <output>.masks.npz and the report to
<output>.report.json. The model that it writes keeps its masks, so that PruningCallback
can keep it sparse in training; with --strip it is a plain model with zeros.
"""

from absl import flags

import tf_synflow
from tf_synflow.commands import model_flags, pruning_flags
from tf_synflow.commands.model_flags import named_model
from tf_synflow.commands.pruning_flags import ITERATIONS, RATIO, SCOPE
from tf_synflow.criteria import DATA_FREE
from tf_synflow.files.models import check_form, checked_output, save_model
from tf_synflow.files.whole import write_text
from tf_synflow.policy.collapse import ACTIONS

flags.adopt_module_key_flags(model_flags)
flags.adopt_module_key_flags(pruning_flags)
_OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "Where to write: .keras, .h5, or a name without ending for a SavedModel.",
    required=True,
)
_CRITERION = flags.DEFINE_enum(
    "criterion", "synflow", DATA_FREE, "Pruning criterion. Default: synflow."
)
_EXCLUDE = flags.DEFINE_list(
    "exclude", [], "Layers, nested models and patterns (base/*) to leave dense."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the criterion random. Default: 0.")
_ON_COLLAPSE = flags.DEFINE_enum(
    "on_collapse",
    "warn",
    ACTIONS,
    "What to do when a layer is emptied: no weight of it is kept. Default: warn.",
)
_STRIP = flags.DEFINE_bool(
    "strip", False, "Write a plain model that holds no masks, only zeros."
)


def main(argv: list[str]) -> None:
    """Prunes the model that the flags name."""
    output = checked_output(_OUTPUT.value)
    model = named_model()
    check_form(output, model)
    pruned = tf_synflow.prune(
        model,
        RATIO.value,
        criterion=_CRITERION.value,
        iterations=ITERATIONS.value,
        scope=SCOPE.value,
        exclude=_EXCLUDE.value,
        seed=_SEED.value,
        on_collapse=_ON_COLLAPSE.value,
    )
    found = tf_synflow.report(pruned)
    tf_synflow.save_masks(f"{output}.masks.npz", tf_synflow.get_masks(pruned))
    write_text(f"{output}.report.json", found.to_json() + "\n")
    # The model is written last: if it exists, the other files exist too.
    save_model(output, tf_synflow.strip(pruned) if _STRIP.value else pruned)
    print(found)
