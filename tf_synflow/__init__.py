"""Prune Keras networks before training, without data: SynFlow for tf_keras."""

from tf_synflow import models, optimizers
from tf_synflow.channels.shrinking import expand, shrink
from tf_synflow.files.exporting import Exported, export
from tf_synflow.files.masks import load_masks, save_masks
from tf_synflow.files.models import load_model
from tf_synflow.flow.linear_parts import register_linear_part
from tf_synflow.policy.collapse import LayerCollapseError, LayerCollapseWarning
from tf_synflow.policy.pruning_policy import PruningPolicy
from tf_synflow.pruning import ablations
from tf_synflow.pruning.callbacks import PruningCallback, SparsityCallback
from tf_synflow.pruning.filter_rounds import prune_filters
from tf_synflow.pruning.masking import apply_masks, get_masks, strip
from tf_synflow.pruning.prune import prune
from tf_synflow.pruning.rewinding import prune_with_rewinding
from tf_synflow.reporting.counting import report
from tf_synflow.reporting.report import Report

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
