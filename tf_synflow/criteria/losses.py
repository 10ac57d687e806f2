"""Which loss a criterion differentiates, and what divides the logits.

The cross-entropies are computed from logits throughout: a network that ends in a
softmax (or sigmoid) is copied without it, which gives the same loss, more exactly, and
lets a temperature T divide the logits.
"""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_synflow._compat import keras, tf

_losses = keras.losses

_CLASSES = {
    _losses.sparse_categorical_crossentropy: _losses.SparseCategoricalCrossentropy,
    _losses.categorical_crossentropy: _losses.CategoricalCrossentropy,
    _losses.binary_crossentropy: _losses.BinaryCrossentropy,
}
_CATEGORICAL = (
    _losses.SparseCategoricalCrossentropy,
    _losses.CategoricalCrossentropy,
)
_SOFTMAX = (keras.activations.softmax, tf.nn.softmax)
_SIGMOID = (keras.activations.sigmoid, tf.nn.sigmoid)

SummedLoss = Callable[[Any, Any], tuple[Any, Any]]


def activation_of(layer: Any) -> str | None:
    """How a layer ends: "softmax", "sigmoid" or None."""
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    activation = getattr(layer, "activation", None)
    if activation in _SOFTMAX:
        return "softmax"
    return "sigmoid" if activation in _SIGMOID else None


def find_loss(
    model: Any, given: Any, activation: str | None, labels: Any
) -> tuple[Any, bool]:
    """The loss, and whether it is computed from logits.

    Args:
      model: The model; if `given` is None, its compiled loss counts.
      given: A Keras loss, its name, a function `(y, outputs) -> loss` of a sample each
        or of the batch's mean; or None.
      activation: How the model ends; see `activation_of`.
      labels: A batch of labels; if nothing else says so, cross-entropy it is, of the
        kind that fits them.

    Returns:
      A Keras `Loss` without a reduction, or a function; and whether it wants the
      outputs without the activation.

    Raises:
      TypeError: `given` is no loss.
      ValueError: The name is unknown, or the model has several outputs.
    """
    if len(model.outputs) != 1:
        raise ValueError(
            f"the model has {len(model.outputs)} outputs, and a loss is needed of one; "
            "give a model of one output, keras.Model(model.inputs, model.outputs[0])"
        )
    loss = given
    if loss is None and model.compiled_loss is not None:
        loss = model.loss or None
    while isinstance(loss, (list, tuple, dict)) and len(loss) == 1:
        loss = list(loss.values() if isinstance(loss, dict) else loss)[0]
    if loss is None:
        loss = _fitting(model.outputs[0].shape, labels.shape, activation)
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    loss = _CLASSES[loss]() if loss in _CLASSES else loss
    if not isinstance(loss, keras.losses.Loss):
        if not callable(loss):
            raise TypeError(
                f"loss must be a Keras loss, its name or a function: {loss!r}"
            )
        return loss, False
    return _from_logits(loss, activation)


def _fitting(outputs: Any, labels: Any, activation: str | None) -> Any:
    """The cross-entropy that fits outputs and labels."""
    if outputs[-1] == 1:
        return keras.losses.BinaryCrossentropy(from_logits=activation is None)
    sparse = labels.rank != outputs.rank or labels[-1] == 1
    return _CATEGORICAL[0 if sparse else 1](from_logits=activation is None)


def _from_logits(loss: Any, activation: str | None) -> tuple[Any, bool]:
    categorical = isinstance(loss, _CATEGORICAL)
    if not categorical and not isinstance(loss, keras.losses.BinaryCrossentropy):
        loss = copy.copy(loss)
        loss.reduction = keras.losses.Reduction.NONE
        return loss, False
    config = loss.get_config()
    # Keras too looks through the activation, whatever from_logits says.
    logits = config["from_logits"] or activation == (
        "softmax" if categorical else "sigmoid"
    )
    config |= {"from_logits": logits, "reduction": keras.losses.Reduction.NONE}
    return type(loss).from_config(config), logits


def summed(loss: Any, temperature: float) -> SummedLoss:
    """The loss as (sum over all elements, their number), which batches add up.

    Args:
      loss: What `find_loss` gave.
      temperature: Divides the outputs, which must then be logits.
    """

    def compute(labels: Any, outputs: Any) -> tuple[Any, Any]:
        values = tf.convert_to_tensor(loss(labels, outputs / temperature))
        values = tf.cast(values, outputs.dtype)
        if values.shape.rank == 0:  # a function that gives the mean
            size = tf.cast(tf.shape(outputs)[0], outputs.dtype)
            return values * size, size
        return tf.reduce_sum(values), tf.cast(tf.size(values), outputs.dtype)

    return compute


def check_labels(
    loss: Any, labels: np.ndarray, outputs: tuple[int | None, ...]
) -> None:
    """Refuses labels of the wrong shape or range.

    Args:
      loss: What `find_loss` gave.
      labels: A batch of labels.
      outputs: Shape of the model's output for that batch, None where it is not fixed.

    Raises:
      ValueError: They do not fit.
    """
    sparse = isinstance(loss, keras.losses.SparseCategoricalCrossentropy)
    known = type(loss).__module__.startswith("tf_keras.")
    if not known:
        return  # a function of the user's own knows what its labels are
    wanted = outputs[:-1] if sparse else outputs
    shapes = [labels.shape, (*labels.shape, 1)]
    if labels.shape[-1] == 1:
        shapes.append(labels.shape[:-1])
    if not any(map(tf.TensorShape(wanted).is_compatible_with, shapes)):
        raise ValueError(
            f"labels have shape {labels.shape}, but {type(loss).__name__} wants "
            f"{wanted}, for outputs of shape {outputs}"
        )
    if not np.issubdtype(labels.dtype, np.number) and labels.dtype != bool:
        raise ValueError(f"labels must be numbers, got dtype {labels.dtype}")
    if not sparse:
        return
    ignored = labels == loss.get_config().get("ignore_class", None)
    wrong = ((labels < 0) | (labels >= outputs[-1]) | (labels % 1 != 0)) & ~ignored
    if wrong.any():
        raise ValueError(
            f"labels must be whole numbers from 0 to {outputs[-1] - 1}, one of "
            f"{outputs[-1]} outputs; got {labels[wrong].ravel()[0]}"
        )
