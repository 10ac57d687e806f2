"""Refuses labels and sample weights that do not fit a loss and the outputs."""

from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow.criteria.gradients.losses import ENDINGS, name_of
from tf_synflow.keras2.imports import LossFunctionWrapper, keras


def check_weights(weights: np.ndarray, outputs: tuple[int | None, ...]) -> None:
    """Refuses sample weights of the wrong shape, or that are not finite.

    Args:
      weights: Sample weights of a batch.
      outputs: Shape of the model's output for that batch, None where it is not fixed.

    Raises:
      ValueError: The sample weights do not fit.
    """
    if not (np.issubdtype(weights.dtype, np.number) or weights.dtype == bool):
        raise ValueError(f"sample weights must be numbers, got dtype {weights.dtype}")
    if not np.isfinite(weights).all():
        raise ValueError("sample weights hold NaN or infinite values")
    pairs = zip(weights.shape, outputs, strict=False)
    fits = all(own == 1 or other is None or own == other for own, other in pairs)
    if weights.ndim > len(outputs) or not fits:
        raise ValueError(
            f"sample weights have shape {weights.shape}, for outputs of shape "
            f"{outputs}; expected one for each sample, or for each place of a sample"
        )


def check_labels(
    loss: Any, labels: np.ndarray, outputs: tuple[int | None, ...]
) -> None:
    """Refuses labels of the wrong shape or range.

    Args:
      loss: The loss of a `Term`.
      labels: A batch of labels.
      outputs: Shape of the model's output for that batch, None where it is not fixed.

    Raises:
      ValueError: The labels do not fit.
    """
    if not (np.issubdtype(labels.dtype, np.number) or labels.dtype == bool):
        raise ValueError(f"labels must be numbers, got dtype {labels.dtype}")
    if not _is_of_keras(loss):
        return  # a function of the user's own knows what its labels are
    sparse = isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    wanted = outputs[:-1] if sparse else outputs
    shapes = [labels.shape, (*labels.shape, 1)]
    if labels.shape[-1] == 1:
        shapes.append(labels.shape[:-1])
    if not any(map(tf.TensorShape(wanted).is_compatible_with, shapes)):
        raise ValueError(
            f"labels have shape {labels.shape}, but {name_of(loss)} wants "
            f"{wanted}, for outputs of shape {outputs}"
        )
    if sparse:
        ignored = labels == loss.get_config().get("ignore_class", None)
        wrong = ((labels < 0) | (labels >= outputs[-1]) | (labels % 1 != 0)) & ~ignored
        expected = f"whole numbers from 0 to {outputs[-1] - 1}, one of {outputs[-1]}"
    elif type(loss) in ENDINGS:
        wrong, expected = ~((labels >= 0) & (labels <= 1)), "probabilities, 0 to 1, of"
    else:
        return
    if wrong.any():
        raise ValueError(
            f"labels must be {expected} outputs; got {labels[wrong].ravel()[0]}"
        )


def _is_of_keras(loss: Any) -> bool:
    source = loss.fn if isinstance(loss, LossFunctionWrapper) else type(loss)
    return getattr(source, "__module__", "").startswith("tf_keras.")
