"""Prune Keras networks before training, without data: SynFlow for Keras 3 and Keras 2.

Importing `tf_synflow` imports neither TensorFlow, which takes seconds, nor Keras. The
first use of a public name imports the modules that it needs. tf_keras and tfmot are
imported with the first model of Keras 2. Their import changes neither `tf.keras` nor
the environment variables.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_synflow import models, optimizers
    from tf_synflow.channels.rules import register_channels
    from tf_synflow.channels.shrinking import expand, shrink
    from tf_synflow.checks import (
        DenseKernelsWarning,
        LayerCollapseError,
        LayerCollapseWarning,
    )
    from tf_synflow.files.exporting import Exported, export
    from tf_synflow.files.masks import load_masks, save_masks
    from tf_synflow.files.models import load_model
    from tf_synflow.flow.linear_parts import register_linear_part
    from tf_synflow.policy.pruning_policy import PruningPolicy
    from tf_synflow.pruning import ablations
    from tf_synflow.pruning.callbacks import PruningCallback, SparsityCallback
    from tf_synflow.pruning.filter_rounds import prune_filters
    from tf_synflow.pruning.masking import (
        apply_masks,
        get_masks,
        strip,
        zero_pruned,
    )
    from tf_synflow.pruning.prune import prune
    from tf_synflow.pruning.rewinding import prune_with_rewinding
    from tf_synflow.reporting.counting import report
    from tf_synflow.reporting.report import Report

__version__ = "0.2.0"

# Each public name, and the module that defines it.
_PLACES = {
    "Exported": "files.exporting",
    "LayerCollapseError": "checks",
    "DenseKernelsWarning": "checks",
    "LayerCollapseWarning": "checks",
    "PruningCallback": "pruning.callbacks",
    "PruningPolicy": "policy.pruning_policy",
    "Report": "reporting.report",
    "SparsityCallback": "pruning.callbacks",
    "ablations": "pruning.ablations",
    "apply_masks": "pruning.masking",
    "expand": "channels.shrinking",
    "export": "files.exporting",
    "get_masks": "pruning.masking",
    "load_masks": "files.masks",
    "load_model": "files.models",
    "models": "models",
    "optimizers": "optimizers",
    "prune": "pruning.prune",
    "prune_filters": "pruning.filter_rounds",
    "prune_with_rewinding": "pruning.rewinding",
    "register_channels": "channels.rules",
    "register_linear_part": "flow.linear_parts",
    "report": "reporting.counting",
    "save_masks": "files.masks",
    "shrink": "channels.shrinking",
    "strip": "pruning.masking",
    "zero_pruned": "pruning.masking",
}

_MODULES = ("ablations", "models", "optimizers")


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use."""
    if name not in _PLACES:
        raise AttributeError(f"module 'tf_synflow' has no attribute {name!r}")
    place = _PLACES[name]
    module = importlib.import_module(f"tf_synflow.{place}")
    found = module if name in _MODULES else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *_PLACES})


__all__ = [
    "Exported",
    "LayerCollapseError",
    "DenseKernelsWarning",
    "LayerCollapseWarning",
    "PruningCallback",
    "PruningPolicy",
    "Report",
    "SparsityCallback",
    "ablations",
    "apply_masks",
    "expand",
    "export",
    "get_masks",
    "load_masks",
    "load_model",
    "models",
    "optimizers",
    "prune",
    "prune_filters",
    "prune_with_rewinding",
    "register_channels",
    "register_linear_part",
    "report",
    "save_masks",
    "shrink",
    "strip",
    "zero_pruned",
]
