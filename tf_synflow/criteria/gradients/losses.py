"""Which loss a criterion differentiates, and how a temperature divides the logits.

A cross-entropy is computed from logits wherever the logits can be found. A network that
ends in a softmax (or sigmoid) is copied without this activation. The copy gives the
same loss more exactly, and lets a temperature T divide the logits.
"""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from tf_synflow.criteria.gradients.samples import by_output, output_names
from tf_synflow.keras2.imports import LossFunctionWrapper, keras
from tf_synflow.network import Network

_losses, _layers = keras.losses, keras.layers

_CLASSES = {
    _losses.sparse_categorical_crossentropy: _losses.SparseCategoricalCrossentropy,
    _losses.categorical_crossentropy: _losses.CategoricalCrossentropy,
    _losses.binary_crossentropy: _losses.BinaryCrossentropy,
}

# Each cross-entropy, and the activation whose inputs are its logits.
ENDINGS = {
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

SummedLoss = Callable[[Any, Any, Any], tuple[Any, Any]]


class Term(NamedTuple):
    """What one output adds to the loss.

    Attributes:
      output: The number of the output among the model's outputs, counted from 0.
      name: The name of the output in errors; "" if the model has only one output.
      loss: A Keras `Loss` without a reduction.
      logits: Whether the loss is computed from logits, without the last activation.
      factor: The factor of the loss in the sum, from the model's `loss_weights`.
    """

    output: int
    name: str
    loss: Any
    logits: bool
    factor: float


def ending(network: Network, output: int = 0) -> tuple[str | None, Any]:
    """How a network ends.

    Args:
      network: The network.
      output: The number of the output among its outputs, counted from 0. Defaults to 0.

    Returns:
      "softmax", "sigmoid", "logits" (a layer without an activation, or with a linear
      one), or None if the ending is not known; and the layer. The ending counts as not
      known if the layer is called elsewhere too, or if its result is needed elsewhere,
      because the layer could not be changed for this output alone.
    """
    tensor = network.outputs[output]
    calls = [call for call in network.calls if tensor in call.outputs]
    if not calls:
        return None, None
    layer = calls[0].layer
    if sum(call.layer is layer for call in network.calls) > 1:
        return None, layer
    read = any(tensor in call.inputs for call in network.calls)
    if len(network.outputs) > 1 and (read or network.outputs.count(tensor) > 1):
        return None, layer
    if type(layer) is _layers.Softmax:
        return "softmax", layer
    if type(layer) in _ACTIVATED:
        return _ACTIVATIONS.get(layer.activation), layer
    return None, layer


def find_losses(
    model: Any, given: Any, ends: list[str | None], labels: list[Any]
) -> list[Term]:
    """The loss of each output that has one.

    Args:
      model: The model.
      given: The losses, or None for the losses and `loss_weights` that the model is
        compiled with. A loss is a Keras loss, the name of one, or a function
        `(labels, outputs) -> loss` that returns the loss of each sample or the mean of
        the batch. A single loss is for all outputs. In a list in the order of the
        outputs, or a dictionary by name of the output, None leaves an output out.
      ends: How the model ends at each output; see `ending`.
      labels: For each output a batch of labels, or None. If neither `given` nor the
        model has a loss, each output with labels gets the cross-entropy that fits its
        labels.

    Returns:
      A `Term` for each output with a loss, at least one.

    Raises:
      TypeError: An entry of `given` is no loss.
      ValueError: A name is unknown; no loss is given, and the fitting one is not known;
        an output with a loss has no labels; or a cross-entropy does not fit the last
        activation.
    """
    names, factors = output_names(model), None
    several = len(names) > 1
    if given is None and model.compiled_loss is not None:
        given = model.loss or None
        factors = getattr(model.compiled_loss, "_user_loss_weights", None)
    losses = _for_each("loss", given, names)
    factors = _for_each("loss_weights", factors, names)
    terms = []
    for number, (name, loss, end) in enumerate(zip(names, losses, ends, strict=True)):
        if loss is None and (given is not None or labels[number] is None):
            continue
        with saying(name if several else ""):
            if labels[number] is None:
                raise ValueError(
                    "data has no labels for it, but it has a loss; give labels, or "
                    'say which outputs have a loss, loss={"name": ...}'
                )
            shape = model.outputs[number].shape
            loss = _fitting(shape, labels[number].shape, end) if loss is None else loss
            loss, logits = _without_reduction(loss, end)
        factor = 1.0 if factors[number] is None else float(factors[number])
        terms.append(Term(number, name if several else "", loss, logits, factor))
    if not terms:
        raise ValueError(
            f"no output of the model has labels and a loss; its outputs are {names}"
        )
    return terms


def _for_each(what: str, given: Any, names: list[str]) -> list[Any]:
    """An entry for each output; a single entry is for all outputs, as in Keras."""
    if len(names) == 1:
        while isinstance(given, (list, tuple, dict)) and len(given) == 1:
            given = list(given.values() if isinstance(given, dict) else given)[0]
        return [given]
    if given is not None and not isinstance(given, (list, tuple, dict)):
        return [given] * len(names)
    return by_output(what, given, names)


@contextlib.contextmanager
def saying(output: str) -> Iterator[None]:
    """Names the output in an error, if the model has several outputs."""
    try:
        yield
    except ValueError as error:
        if output:
            raise ValueError(f"output {output!r}: {error}") from error
        raise


def _without_reduction(loss: Any, end: str | None) -> tuple[Any, bool]:
    """A Keras loss without reduction, and whether it is computed from logits."""
    if isinstance(loss, str):
        loss = keras.losses.get(loss)
    if inspect.isfunction(loss) and loss in _CLASSES:
        loss = _CLASSES[loss]()
    if isinstance(loss, type) or not callable(loss):
        raise TypeError(
            f"loss must be a Keras loss (an object, not a class), its name or a "
            f"function, got {loss!r}"
        )
    if any(kind.__module__[:6] == "keras." for kind in type(loss).__mro__):
        raise TypeError(
            f"{type(loss).__name__} is a loss of Keras 3, and the model is one of "
            "Keras 2: take the loss from tf_keras.losses"
        )
    if not isinstance(loss, _losses.Loss):
        # As Keras does: it brings labels (n,) and outputs (n, 1) into one shape.
        loss = LossFunctionWrapper(loss, name=getattr(loss, "__name__", "loss"))
    if type(loss) in ENDINGS:
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
    wanted = ENDINGS[type(loss)]
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
    """The loss of a batch as (sum over its elements, number of its elements).

    Both numbers are added up over all batches. Elements that a Keras mask leaves out do
    not count. An element with a sample weight counts as one element, whatever its
    weight. So the mean is the one that Keras trains by.

    Args:
      loss: The loss of a `Term`.
      temperature: Divides the outputs, which must be logits unless it is 1.

    Returns:
      A function of labels, outputs and sample weights (None if there are none).
    """

    def compute(labels: Any, outputs: Any, weights: Any = None) -> tuple[Any, Any]:
        logits = outputs
        mask = getattr(outputs, "_keras_mask", None)
        if temperature != 1:
            logits = outputs / temperature
            # By this mask, Keras leaves masked time steps out of the loss.
            logits._keras_mask = mask
        if labels.shape.rank == 1 and outputs.shape.rank == 2:
            labels = labels[:, None]  # as Keras does for compiled losses
        if labels.dtype.is_floating:
            labels = tf.cast(labels, outputs.dtype)
        values = tf.cast(loss(labels, logits), outputs.dtype)
        if values.shape.rank == 0:  # a function that gives the mean
            if weights is not None:
                raise ValueError(
                    f"sample weights need a loss for each sample, but {name_of(loss)} "
                    "gives one number for a batch; let it return one for each sample"
                )
            size = tf.cast(tf.shape(outputs)[0], outputs.dtype)
            return values * size, size
        size = tf.cast(tf.size(values), outputs.dtype)
        if mask is not None:
            mask = tf.cast(mask, outputs.dtype)
            size *= tf.reduce_sum(mask) / tf.cast(tf.size(mask), outputs.dtype)
        if weights is not None:
            values *= _of_rank(tf.cast(weights, outputs.dtype), values.shape.rank)
        return tf.reduce_sum(values), size

    return compute


def _of_rank(weights: Any, rank: int) -> Any:
    """Sample weights with axes added at the end, to fit losses of this rank."""
    if weights.shape.rank == rank + 1 and weights.shape[-1] == 1:
        return weights[..., 0]
    while weights.shape.rank < rank:
        weights = weights[..., None]
    if weights.shape.rank > rank:
        raise ValueError(
            f"sample weights have shape {tuple(weights.shape)}, batch axis first, but "
            f"there is one loss for each place of {rank} axes"
        )
    return weights


def name_of(loss: Any) -> str:
    """The name of a loss in errors."""
    return loss.name if type(loss) is LossFunctionWrapper else type(loss).__name__
