"""Gradients of the loss, and Hessian-vector products, over all of the data.

They are taken in a copy of the network, so that nothing of the user's changes: neither
weights nor BatchNormalization's statistics. With n loss values in all (one a sample,
for a classifier), L = (1/n) sum_i L_i, however the samples are cut into batches.

References:
  Pearlmutter. Fast exact multiplication by the Hessian. Neural Computation, 1994.
  (Hv is the gradient of g'v, v held fixed; H itself is never formed.)
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from tf_synflow._compat import keras, tf
from tf_synflow.copying import copy_model
from tf_synflow.criteria import losses
from tf_synflow.criteria.problem import Problem
from tf_synflow.criteria.samples import Samples
from tf_synflow.graph import flatten, named_weights
from tf_synflow.masks import Masks, Scores


class _ByTheBatch(keras.layers.BatchNormalization):
    """Normalises by the batch, while all else, such as dropout, is as in inference."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return super().call(inputs, training=True, mask=mask)


class Derivatives:
    """First and second derivatives of a network's loss by its prunable weights."""

    def __init__(self, problem: Problem, temperature: float = 1.0):
        """Copies the network, and looks at the first batch.

        Args:
          problem: The network, with data.
          temperature: T, which divides the logits, unless the problem says another.

        Raises:
          TypeError: Data or loss are of no known kind.
          ValueError: See `Samples`, `losses.find_loss` and `losses.check_labels`; or a
            temperature is asked for where the logits cannot be told.
        """
        self._samples = Samples(problem.data, problem.model)
        end, last = losses.ending(problem.graph)
        inputs, labels = next(iter(self._samples))
        loss, logits = losses.find_loss(problem.model, problem.loss, end, labels)
        temperature = problem.temperature or temperature
        if temperature != 1 and not logits:
            raise ValueError(
                f"this criterion divides the logits by a temperature ({temperature:g}),"
                f" but what the logits are for the loss {losses.name_of(loss)} is not "
                "known; use one of Keras's cross-entropies, from_logits=True or behind "
                "a softmax layer, or set temperature=1"
            )
        self._problem = problem
        self._loss = loss
        self._summed = losses.summed(loss, temperature)
        self._model = _copy(problem, last if logits and end != "logits" else None)
        variables = named_weights(flatten(self._model))
        # Of a variable that is mirrored on several devices, the first one.
        self._variables = {
            name: getattr(variables[name], "values", [variables[name]])[0]
            for name in problem.weights
        }
        for name, variable in variables.items():
            if not np.isfinite(variable.numpy()).all():
                raise ValueError(
                    f"{name!r} holds NaN or infinite values, so the loss would too"
                )
        self._check(labels)
        shapes = [(None, *tensor.shape[1:]) for tensor in problem.model.inputs]
        signature = (
            [tf.TensorSpec(s, t.dtype) for s, t in zip(shapes, inputs, strict=True)],
            tf.TensorSpec([None] * labels.shape.rank, labels.dtype),
        )
        self._gradients = tf.function(self._batch_gradients, signature, autograph=False)
        directions = [
            tf.TensorSpec(variable.shape, variable.dtype)
            for variable in self._variables.values()
        ]
        self._products = tf.function(
            self._batch_products, (*signature, directions), autograph=False
        )

    def gradient(self, masks: Masks) -> Scores:
        """The gradient g = dL/dw of the network under masks.

        Args:
          masks: Name to mask; a pruned weight is 0 in the network, and so is its g.

        Returns:
          Name to float64 array of the weight's shape.

        Raises:
          ValueError: The loss or a gradient is NaN or infinite, or data does not fit.
        """
        return self._over_all(self._gradients, masks)

    def hessian_gradient(self, masks: Masks) -> Scores:
        """Hg, the Hessian of L by the surviving weights times their gradient.

        It is half the gradient of |g|^2. Arguments, result and errors are those of
        `gradient`, which it begins with.
        """
        gradients = self.gradient(masks)
        directions = [
            tf.constant(gradients[name], variable.dtype)
            for name, variable in self._variables.items()
        ]
        return self._over_all(lambda x, y: self._products(x, y, directions), masks)

    def _over_all(
        self, function: Callable[[Any, Any], tuple[Any, Any, list[Any]]], masks: Masks
    ) -> Scores:
        """The mean over all data of what is summed for each batch."""
        for name, variable in self._variables.items():
            variable.assign(self._problem.weights[name] * masks[name])
        totals, loss, size = None, 0.0, 0.0
        for inputs, labels in self._problem.progress(self._samples):
            self._check(labels)
            value, elements, derivatives = function(inputs, labels)
            loss, size = loss + float(value), size + float(elements)
            if not np.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss} on this data; check that the data is finite "
                    "and normalised, and that the loss fits the network's output"
                )
            parts = [tf.cast(part, tf.float64) for part in derivatives]
            if totals is None:
                totals = parts
            else:
                totals = [a + b for a, b in zip(totals, parts, strict=True)]
        results = {
            name: total.numpy() / size * masks[name]
            for name, total in zip(self._variables, totals, strict=True)
        }
        for name, result in results.items():
            if not np.isfinite(result).all():
                raise ValueError(
                    f"the loss is finite, but its derivatives by {name!r} are not: "
                    "some layer or loss has no finite slope there, as the square root "
                    "at 0"
                )
        return results

    def _sum(self, inputs: list[Any], labels: Any) -> tuple[Any, Any]:
        inputs = inputs[0] if len(inputs) == 1 else inputs
        outputs = self._model(inputs, training=False)
        return self._summed(labels, outputs)

    def _batch_gradients(self, inputs: list[Any], labels: Any) -> tuple:
        variables = list(self._variables.values())
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(variables)
            value, size = self._sum(inputs, labels)
        return value, size, tape.gradient(value, variables, unconnected_gradients=_ZERO)

    def _batch_products(
        self, inputs: list[Any], labels: Any, directions: list[Any]
    ) -> tuple:
        variables = list(self._variables.values())
        with tf.GradientTape(watch_accessed_variables=False) as outer:
            outer.watch(variables)
            value, size, gradients = self._batch_gradients(inputs, labels)
            slope = tf.add_n(
                [
                    tf.reduce_sum(gradient * direction)
                    for gradient, direction in zip(gradients, directions, strict=True)
                ]
            )
        return (
            value,
            size,
            outer.gradient(slope, variables, unconnected_gradients=_ZERO),
        )

    def _check(self, labels: Any) -> None:
        outputs = (labels.shape[0], *self._model.outputs[0].shape[1:])
        losses.check_labels(self._loss, labels.numpy(), outputs)


_ZERO = tf.UnconnectedGradients.ZERO


def over_total(scores: Scores) -> Scores:
    """Scores divided by their total, so that they can be set side by side.

    Signed scores are divided by the total's absolute value: their order, and with it
    what is pruned, must not turn round where the total is negative.
    """
    total = abs(sum(float(score.sum()) for score in scores.values()))
    if not total > 0:
        if not any(score.any() for score in scores.values()):
            warnings.warn(
                "all scores are 0: no weight has a gradient on this data, so weights "
                "are removed by their position",
                stacklevel=2,
            )
        return scores
    return {name: score / total for name, score in scores.items()}


def _copy(problem: Problem, without_activation: Any) -> Any:
    """A copy that computes in the problem's dtype; see `_ByTheBatch` for training."""

    def make(layer: Any) -> Any:
        config = _in_dtype(layer.get_config(), problem.dtype)
        if layer is without_activation:
            if type(layer) is keras.layers.Softmax:
                return keras.layers.Activation(
                    "linear", name=layer.name, dtype=problem.dtype
                )
            config["activation"] = "linear"
        if problem.training and type(layer) is keras.layers.BatchNormalization:
            return _ByTheBatch.from_config(config)
        return type(layer).from_config(config)

    try:
        return copy_model(problem.model, make)[0]
    except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
        raise ValueError(
            f"the model cannot be copied to compute in {problem.dtype}: {error}. "
            "Layers of your own must follow their `dtype`, and take the arguments of "
            "their `get_config`; or set the policy's dtype to what the model computes "
            "in"
        ) from error


def _in_dtype(config: Any, dtype: str) -> Any:
    """A layer's configuration, and those nested in it, with another floating dtype."""
    if isinstance(config, (list, tuple)):
        parts = [_in_dtype(part, dtype) for part in config]
        return tuple(parts) if isinstance(config, tuple) else parts
    if not isinstance(config, Mapping):
        return config
    new = {key: _in_dtype(value, dtype) for key, value in config.items()}
    old = config.get("dtype")
    if isinstance(old, Mapping) or (isinstance(old, str) and "float" in old):
        new["dtype"] = dtype  # "float32", "mixed_float16" or a policy written out
    return new
