"""Gradients of the loss, and Hessian-vector products, over all of the data.

All derivatives are computed in a copy of the network. So the user's network does not
change: neither its weights nor the statistics of its BatchNormalization. With n loss
values in all (for a classifier, one for each sample), the loss is
L = (1/n) sum_i s_i L_i, however the samples are cut into batches. Here s_i is the
weight of sample i, or 1 if the data has no sample weights. With several outputs, L is
the sum of the mean losses of the outputs, each times the factor in the `loss_weights`
that the model is compiled with.

References:
  Pearlmutter. Fast exact multiplication by the Hessian. Neural Computation, 1994.
  (Hv is the gradient of g'v with v held fixed; H itself is never formed.)
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_synflow import frameworks
from tf_synflow.criteria.gradients import batches, losses
from tf_synflow.criteria.gradients.samples import Batch, Samples
from tf_synflow.criteria.problem import Problem
from tf_synflow.keras2 import rebuild
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.types import Masks, Scores
from tf_synflow.network.copies import Rebuilt


class _ByTheBatch(keras.layers.BatchNormalization):
    """Normalises by the batch; other layers, such as dropout, are as in inference."""

    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        return super().call(inputs, training=True, mask=mask)


class Derivatives:
    """First and second derivatives of a network's loss by its prunable weights."""

    def __init__(self, problem: Problem, temperature: float = 1.0):
        """Copies the network, and checks the first batch.

        Args:
          problem: The network, with data.
          temperature: T, which divides the logits, unless the problem has a temperature
            of its own. Defaults to 1.

        Raises:
          TypeError: Data or loss are of no known kind.
          ValueError: See `Samples`, `losses.find_losses` and `batches.check_labels`; a
            temperature is asked for, but the logits are not known; or a Keras 3 model
            cannot be converted.
        """
        adapter = frameworks.adapter_of(problem.network.model)
        network, loss = adapter.for_gradients(problem.network, problem.loss)
        problem = dataclasses.replace(problem, network=network, loss=loss)
        self._samples = Samples(problem.data, problem.network.model)
        count = len(problem.network.outputs)
        ends = [losses.ending(problem.network, number) for number in range(count)]
        batch = next(iter(self._samples))
        self._terms = losses.find_losses(
            problem.network.model, problem.loss, [end for end, _ in ends], batch.labels
        )
        temperature = problem.temperature or temperature
        for term in self._terms:
            if temperature != 1 and not term.logits:
                of = f" (output {term.name!r})" if term.name else ""
                raise ValueError(
                    "this criterion divides the logits by a temperature "
                    f"({temperature:g}), but what the logits are for the loss "
                    f"{losses.name_of(term.loss)}{of} is not known; use one of Keras's "
                    "cross-entropies, from_logits=True or behind a softmax layer, or "
                    "set temperature=1"
                )
        self._problem = problem
        self._summed = [losses.summed(term.loss, temperature) for term in self._terms]
        last = [ends[term.output] for term in self._terms if term.logits]
        activated = ("softmax", "sigmoid")
        self._model, variables = _copy(
            problem, [layer for end, layer in last if end in activated]
        )
        # If a variable is mirrored on several devices, its first copy is used.
        self._variables = {
            name: getattr(variables[name], "values", [variables[name]])[0]
            for name in (*problem.weights, *_others(problem))
        }
        for name, variable in variables.items():
            if not np.isfinite(variable.numpy()).all():
                raise ValueError(
                    f"{name!r} holds NaN or infinite values, so the loss would too"
                )
        self._weighted = [batch.weights[t.output] is not None for t in self._terms]
        self._dtypes = [tensor.dtype for tensor in batch.inputs]
        parts = self._parts(batch)
        shapes = [(None, *tensor.shape[1:]) for tensor in problem.network.model.inputs]
        signature = (
            [tf.TensorSpec(s, d) for s, d in zip(shapes, self._dtypes, strict=True)],
            *(
                [tf.TensorSpec([None] * t.shape.rank, t.dtype) for t in tensors]
                for tensors in parts[1:]
            ),
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
        return self._scored(self._over_all(self._gradients, masks))

    def hessian_gradient(self, masks: Masks) -> Scores:
        """Hg, the Hessian of L by the surviving weights times the gradient by them.

        Hg is half the gradient of |g|^2. If the problem sets `whole_hessian`, H and g
        are taken over all trainable variables. The gradient is computed first.
        Arguments, result and errors are those of `gradient`.
        """
        gradients = self._over_all(self._gradients, masks)
        directions = [
            tf.constant(gradients[name], variable.dtype)
            for name, variable in self._variables.items()
        ]
        return self._scored(
            self._over_all(lambda *parts: self._products(*parts, directions), masks)
        )

    def _scored(self, derivatives: Scores) -> Scores:
        """The derivatives by the weights that are scored."""
        return {name: derivatives[name] for name in self._problem.weights}

    def _over_all(
        self, function: Callable[..., tuple[list, list, list]], masks: Masks
    ) -> Scores:
        """The mean over all data of the sums that `function` returns for each batch."""
        for name, weight in self._problem.weights.items():
            self._variables[name].assign(weight * masks[name])
        totals, loss, sizes = None, 0.0, [0.0] * len(self._terms)
        for batch in self._problem.progress(self._samples):
            values, elements, derivatives = function(*self._parts(batch))
            loss += sum(float(value) for value in values)
            sizes = [a + float(b) for a, b in zip(sizes, elements, strict=True)]
            if not np.isfinite(loss):
                raise ValueError(
                    f"the loss is {loss} on this data; check that the data is finite "
                    "and normalised, and that the loss fits the network's output"
                )
            parts = [[tf.cast(d, tf.float64) for d in own] for own in derivatives]
            if totals is None:
                totals = parts
            else:
                totals = [
                    [a + b for a, b in zip(own, more, strict=True)]
                    for own, more in zip(totals, parts, strict=True)
                ]
        means = [
            [term.factor * (total.numpy() / size) for total in own]
            for term, own, size in zip(
                self._terms, totals, self._counted(sizes), strict=True
            )
        ]
        results = {
            name: sum(own) * masks.get(name, 1)
            for name, *own in zip(self._variables, *means, strict=True)
        }
        for name, result in results.items():
            if not np.isfinite(result).all():
                raise ValueError(
                    f"the loss is finite, but its derivatives by {name!r} are not: "
                    "some layer or loss has no finite slope there, as the square root "
                    "at 0"
                )
        return results

    def _counted(self, sizes: list[float]) -> list[float]:
        if not all(sizes):
            raise ValueError(
                "no data is left for the loss of an output: the Keras mask (of an "
                "Embedding or Masking layer, for example) leaves out every element. "
                "Give data that the mask does not leave out"
            )
        return sizes

    def _parts(self, batch: Batch) -> tuple[list[Any], list[Any], list[Any]]:
        """Inputs, and the labels and sample weights of the outputs with a loss."""
        labels, weights = [], []
        for term, weighted in zip(self._terms, self._weighted, strict=True):
            own, weight = batch.labels[term.output], batch.weights[term.output]
            with losses.saying(term.name):
                if own is None or weighted != (weight is not None):
                    raise ValueError(
                        "some batches have labels (or sample weights) and some do not; "
                        "give them with all or with none"
                    )
                outputs = self._model.outputs[term.output].shape[1:]
                outputs = (own.shape[0], *outputs)
                batches.check_labels(term.loss, own.numpy(), outputs)
                labels.append(own)
                if weighted:
                    batches.check_weights(weight.numpy(), outputs)
                    weights.append(weight)
        inputs = zip(batch.inputs, self._dtypes, strict=True)
        return [tf.cast(x, dtype) for x, dtype in inputs], labels, weights

    def _sums(self, inputs: list[Any], labels: list[Any], weights: list[Any]) -> Any:
        """For each output, the sum of its losses and the number of these losses."""
        outputs = self._model(inputs[0] if len(inputs) == 1 else inputs, training=False)
        outputs, weights = tf.nest.flatten(outputs), iter(weights)
        pairs = [
            compute(own, outputs[term.output], next(weights) if weighted else None)
            for term, compute, own, weighted in zip(
                self._terms, self._summed, labels, self._weighted, strict=True
            )
        ]
        return [value for value, _ in pairs], [size for _, size in pairs]

    def _tape(self) -> Any:
        several = len(self._terms) > 1
        return tf.GradientTape(persistent=several, watch_accessed_variables=False)

    def _batch_gradients(
        self, inputs: list[Any], labels: list[Any], weights: list[Any]
    ) -> tuple:
        variables = list(self._variables.values())
        with self._tape() as tape:
            tape.watch(variables)
            values, sizes = self._sums(inputs, labels, weights)
        return values, sizes, [_slopes(tape, v, variables) for v in values]

    def _batch_products(
        self,
        inputs: list[Any],
        labels: list[Any],
        weights: list[Any],
        directions: list[Any],
    ) -> tuple:
        variables = list(self._variables.values())
        with self._tape() as outer:
            outer.watch(variables)
            values, sizes, gradients = self._batch_gradients(inputs, labels, weights)
            slopes = [
                tf.add_n(
                    [tf.reduce_sum(g * d) for g, d in zip(own, directions, strict=True)]
                )
                for own in gradients
            ]
        return values, sizes, [_slopes(outer, s, variables) for s in slopes]


def _others(problem: Problem) -> list[str]:
    """Names of the trainable variables that are not scored, if the problem asks."""
    network = problem.network
    trained = {id(variable) for variable in network.model.trainable_variables}
    return [
        name
        for name, variable in network.weights.items()
        if problem.whole_hessian
        and name not in problem.weights
        and id(variable) in trained
    ]


def _slopes(tape: Any, value: Any, variables: list[Any]) -> list[Any]:
    """The gradients as dense tensors; TensorFlow keeps those of embeddings as rows."""
    zero = tf.UnconnectedGradients.ZERO
    gradients = tape.gradient(value, variables, unconnected_gradients=zero)
    return [tf.convert_to_tensor(gradient) for gradient in gradients]


def _copy(problem: Problem, without_activation: list[Any]) -> Rebuilt:
    """A copy that computes in the problem's dtype; see `_ByTheBatch` for training."""

    def make(layer: Any) -> Any:
        config = _in_dtype(layer.get_config(), problem.dtype)
        if any(layer is other for other in without_activation):
            if type(layer) is keras.layers.Softmax:
                return keras.layers.Activation(
                    "linear", name=layer.name, dtype=problem.dtype
                )
            config["activation"] = "linear"
        if problem.training and type(layer) is keras.layers.BatchNormalization:
            return _ByTheBatch.from_config(config)
        return type(layer).from_config(config)

    try:
        return rebuild(problem.network, {}, hold=False, make=make)
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
