"""Which loss a criterion differentiates, and what divides the logits.

The cross-entropies are computed from logits wherever they can be found: a network that
ends in a softmax (or sigmoid) is copied without it, which gives the same loss, more
exactly, and lets a temperature T divide the logits.
"""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_synflow._compat import LossFunctionWrapper, keras, tf
from tf_synflow.graph import Graph

_losses, _layers = keras.losses, keras.layers

_CLASSES = {
    _losses.sparse_categorical_crossentropy: _losses.SparseCategoricalCrossentropy,
    _losses.categorical_crossentropy: _losses.CategoricalCrossentropy,
    _losses.binary_crossentropy: _losses.BinaryCrossentropy,
}
# Each cross-entropy, and the activation whose inputs are its logits.
_ENDINGS = {
    _losses.SparseCategoricalCrossentropy: "softmax",
    _losses.CategoricalCrossentropy: "softmax",
    _losses.BinaryCrossentropy: "sigmoid",
}
# Layers whose `activation` is the last thing that they do.
_ACTIVATED = (
    *(_layers.Activation, _layers.Dense, _layers.EinsumDense),
    *(_layers.Conv1D, _layers.Conv2D, _layers.Conv3D),
    *(_layers.Conv1DTranspose, _layers.Conv2DTranspose, _layers.Conv3DTranspose),
)
_ACTIVATIONS = {
    keras.activations.softmax: "softmax",
    tf.nn.softmax: "softmax",
    keras.activations.sigmoid: "sigmoid",
    tf.nn.sigmoid: "sigmoid",
    keras.activations.linear: "logits",
}

SummedLoss = Callable[[Any, Any], tuple[Any, Any]]


def ending(graph: Graph) -> tuple[str | None, Any]:
    """How a network ends.

    Args:
      graph: The model, laid flat.

    Returns:
      "softmax", "sigmoid", "logits" (a layer of weights without an activation) or, if
      that cannot be told, None; and the layer. A layer that is called elsewhere too
      cannot be told, for it could not be changed alone.
    """
    calls = [call for call in graph.calls if graph.outputs[0] in call.outputs]
    if not calls:
        return None, None
    layer = calls[0].layer
    if sum(call.layer is layer for call in graph.calls) > 1:
        return None, layer
    if type(layer) is _layers.Softmax:
        return "softmax", layer
    if type(layer) in _ACTIVATED:
        return _ACTIVATIONS.get(layer.activation), layer
    return None, layer


def find_loss(model: Any, given: Any, end: str | None, labels: Any) -> tuple[Any, bool]:
    """The loss, and whether it is computed from logits.

    Args:
      model: The model; if `given` is None, its compiled loss counts.
      given: A Keras loss, its name, a function `(labels, outputs) -> loss` of a sample
        each or of the batch's mean; or None.
      end: How the model ends; see `ending`.
      labels: A batch of labels; if nothing else says so, cross-entropy it is, of the
        kind that fits them.

    Returns:
      A Keras `Loss` without a reduction; and whether it is to be computed from logits,
      without the model's last activation.

    Raises:
      TypeError: `given` is no loss.
      ValueError: The name is unknown, the model has several outputs, no loss is given
        and none can be told, or a cross-entropy does not fit the last activation.
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
        loss = _fitting(model.outputs[0].shape, labels.shape, end)
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if inspect.isfunction(loss) and loss in _CLASSES:
        loss = _CLASSES[loss]()
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(
            f"loss must be a Keras loss (an object, not a class), its name or a "
            f"function, got {loss!r}"
        )
    if not isinstance(loss, _losses.Loss):
        # As Keras does: it brings labels (n,) and outputs (n, 1) into one shape.
        loss = LossFunctionWrapper(loss, name=getattr(loss, "__name__", "loss"))
    if type(loss) in _ENDINGS:
        return _cross_entropy(loss, end)
    loss = copy.copy(loss)
    loss.reduction = _losses.Reduction.NONE
    return loss, False


def _fitting(outputs: Any, labels: Any, end: str | None) -> Any:
    """The cross-entropy that fits outputs and labels."""
    if end is None:
        raise ValueError(
            "the model is not compiled, and how its outputs are meant cannot be told "
            "from its last layer; say which loss, "
            "loss=keras.losses.SparseCategoricalCrossentropy(from_logits=...)"
        )
    logits = end == "logits"
    if end == "sigmoid" or outputs[-1] == 1:
        return _losses.BinaryCrossentropy(from_logits=logits)
    if labels.rank != outputs.rank or labels[-1] == 1:
        return _losses.SparseCategoricalCrossentropy(from_logits=logits)
    return _losses.CategoricalCrossentropy(from_logits=logits)


def _cross_entropy(loss: Any, end: str | None) -> tuple[Any, bool]:
    wanted = _ENDINGS[type(loss)]
    if end in ("softmax", "sigmoid") and end != wanted:
        raise ValueError(
            f"{type(loss).__name__} goes with a {wanted} (or logits), but the model "
            f"ends in a {end}; use the cross-entropy that goes with it"
        )
    config = loss.get_config()
    # Keras too looks through the activation, whatever from_logits says.
    logits = config["from_logits"] or end == wanted
    config |= {"from_logits": logits, "reduction": _losses.Reduction.NONE}
    return type(loss).from_config(config), logits


def summed(loss: Any, temperature: float) -> SummedLoss:
    """The loss as (sum over all elements, their number), which batches add up.

    Args:
      loss: What `find_loss` gave.
      temperature: Divides the outputs, which must then be logits.
    """

    def compute(labels: Any, outputs: Any) -> tuple[Any, Any]:
        logits = outputs
        if temperature != 1:
            logits = outputs / temperature
            # Keras keeps time steps that do not count out of the loss by this.
            logits._keras_mask = getattr(outputs, "_keras_mask", None)
        if labels.shape.rank == 1 and outputs.shape.rank == 2:
            labels = labels[:, None]  # as Keras does for compiled losses
        if labels.dtype.is_floating:
            labels = tf.cast(labels, outputs.dtype)
        values = tf.cast(loss(labels, logits), outputs.dtype)
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
    if not (np.issubdtype(labels.dtype, np.number) or labels.dtype == bool):
        raise ValueError(f"labels must be numbers, got dtype {labels.dtype}")
    if not _is_of_keras(loss):
        return  # a function of the user's own knows what its labels are
    sparse = isinstance(loss, _losses.SparseCategoricalCrossentropy)
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
    elif type(loss) in _ENDINGS:
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


def name_of(loss: Any) -> str:
    """What to call a loss in an error."""
    return loss.name if type(loss) is LossFunctionWrapper else type(loss).__name__
