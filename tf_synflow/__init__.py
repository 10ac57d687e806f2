"""Prune Keras networks before training, without data: SynFlow for tf_keras."""

from tf_synflow import ablations, models, optimizers
from tf_synflow.callbacks import PruningCallback
from tf_synflow.collapse import LayerCollapseError, LayerCollapseWarning
from tf_synflow.exporting import Exported, export
from tf_synflow.linear_parts import register_linear_part
from tf_synflow.mask_files import load_masks, save_masks
from tf_synflow.model_files import load_model
from tf_synflow.policy import PruningPolicy
from tf_synflow.pruning import prune
from tf_synflow.report import Report, report
from tf_synflow.rewinding import prune_with_rewinding
from tf_synflow.rounds import prune_filters
from tf_synflow.shrinking import expand, shrink
from tf_synflow.sparsity import SparsityCallback
from tf_synflow.wrapping import (
    apply_masks,
    get_masks,
    strip,
)

__version__ = "0.1.0"

__all__ = [
    "Exported",
    "LayerCollapseError",
    "LayerCollapseWarning",
    "PruningCallback",
    "PruningPolicy",
    "Report",
    "SparsityCallback",
    "ablations",
    "apply_masks",
    "get_masks",
    "expand",
    "export",
    "load_masks",
    "load_model",
    "models",
    "optimizers",
    "prune",
    "prune_filters",
    "prune_with_rewinding",
    "register_linear_part",
    "report",
    "save_masks",
    "shrink",
    "strip",
]
