"""The linear twin of a network: the copy that SynFlow differentiates.

The twin of a model has the absolute values of the model's weights, no biases, the
identity for every activation, and the linear part of every normalisation. It computes
in float64 on an input of ones. The sum of its outputs is the synaptic flow

    R = 1' (prod_l |W_l|) 1        (equation 2 of the reference, for a Dense chain)

that is, the sum over all paths from input to output of the product of the weights'
absolute values along the path. In deep networks R is too large for float64. So the twin
computes R / 2**e: exact powers of two keep its signals near 1. The scores of each layer
add up to this scaled flow, so the gradients stay in range too.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_synflow.checks import first_line
from tf_synflow.flow import linear_parts, operators, position_rules
from tf_synflow.flow.linear_parts import LinearPart
from tf_synflow.flow.parts import shapes
from tf_synflow.flow.positions import Spread, expanded, ones
from tf_synflow.flow.refusals import keep_shapes, refusal
from tf_synflow.flow.scaling import Signal, aligned, normalised
from tf_synflow.network import Call, Network

# Bytes. TensorFlow ends the process if the address of a tensor is not a multiple of it.
_ALIGNMENT = 64


class LinearTwin:
    """The flow R of a model as a differentiable function of its |weights|."""

    def __init__(
        self,
        network: Network,
        weights: Mapping[str, "Magnitudes"],
        carried: Mapping[str, np.ndarray] | None = None,
        open_axes: Mapping[str, Collection[int]] | None = None,
        exclude: Collection[str] | None = (),
        settle: Callable[[Signal], Signal] = normalised,
        traced: bool = False,
        product: bool = False,
    ):
        """Prepares the twin.

        Args:
          network: The network. Calls that lead to none of its outputs, such as
            those of an `add_loss`, are left out.
          weights: Name ("conv1/kernel") to the `Magnitudes` to differentiate by.
          carried: Name to |w| of weights that are given at each pass too, but that R is
            not differentiated by. Defaults to none. A weight that is neither here nor
            in `weights` keeps the value that it has in its layer now.
          open_axes: Name to the axes of a weight whose sizes may change from pass to
            pass. Defaults to none.
          exclude: Names of layers that may be passed over: such a layer is treated as
            the identity if it has no known linear part. If None, no layer may be passed
            over, and error messages do not suggest excluding a layer. Defaults to ().
          settle: The function that brings a layer's output into range. Defaults to
            scaling by a power of two.
          traced: Whether to trace the twin once, as a TensorFlow function. Tracing
            takes as long as ten passes, so it pays for a twin that is used often.
            Defaults to False: passes are eager.
          product: See `linear_parts.rule_of`. Defaults to False.

        Raises:
          ValueError: Layers have no known linear part (the error names them all), or an
            input has no fixed shape.
        """
        self._settle = settle
        given = {name: weight.array for name, weight in weights.items()}
        given |= carried or {}
        dtype = next(iter(given.values())).dtype
        self._network = network = leading_to_outputs(network)
        self._names = list(weights)
        self._numbers = operators.numbers(network)
        self._rules = _linear_parts(network, exclude, self._numbers, product)
        self._unsettled = _read_by_scales(network, self._rules) | self._numbers
        self._exponents = {name: weight.exponent for name, weight in weights.items()}
        # Always on the CPU, so that every machine computes the same.
        with tf.device("CPU"):
            self._inputs = [_ones(shape, dtype) for shape in network.input_shapes]
            self._constants = {
                name: tf.constant(np.abs(variable.numpy().astype(dtype)))
                for name, variable in network.weights.items()
                if name not in given
            }
        self._pass = self._flow_and_gradients
        if traced:
            specs = {
                name: _spec(name, array, (open_axes or {}).get(name, ()))
                for name, array in given.items()
            }
            function = tf.function(self._flow_and_gradients, autograph=False)
            self._pass = function.get_concrete_function(specs)

    def flow(self, weights: Mapping[str, Any]) -> Signal:
        """The synaptic flow.

        Args:
          weights: Name to tensor with entries >= 0, for each name in the constructor's
            `weights` and `carried`.

        Returns:
          R, the sum of all outputs of the twin, as a tensor and an exponent.
        """
        weights = {**self._constants, **weights}
        start = tf.constant(0, tf.int64)
        signals = {
            number: Signal(ones.tensor, start, 0, ones.positions)
            for number, ones in zip(self._network.inputs, self._inputs, strict=True)
        }
        for call, rule in zip(self._network.calls, self._rules, strict=True):
            inputs = [signals[number] for number in call.inputs]
            outputs = self._apply(call, rule, inputs, weights)
            signals.update(zip(call.outputs, outputs, strict=True))
        tops = aligned([signals[number] for number in self._network.outputs])
        wholes = [expanded(Spread(top.tensor, top.positions)).tensor for top in tops]
        total = tf.add_n([tf.reduce_sum(whole) for whole in wholes])
        total = normalised(Signal(total, tops[0].exponent, tops[0].offset))
        return Signal(total.tensor, total.whole_exponent)

    def _apply(
        self,
        call: Call,
        rule: LinearPart,
        inputs: list[Signal],
        weights: Mapping[str, Any],
    ) -> list[Signal]:
        """Applies the rule of one layer, and brings its outputs near 1 if needed."""
        names = {short: f"{call.name}/{short}" for short in call.weights}
        own = {short: weights[name] for short, name in names.items()}
        inputs = self._meeting(call, inputs)
        first = call.arguments[0] if call.arguments else None
        listed = len(inputs) > 1 or isinstance(first, (list, tuple))

        def apply(tensors: list[Any]) -> list[Any]:
            results = rule(call.layer, tensors if listed else tensors[0], own)
            return tf.nest.flatten(results)

        spreads = [Spread(signal.tensor, signal.positions) for signal in inputs]
        results = position_rules.rule_of(rule)(call.layer, apply, spreads)
        offset = inputs[0].offset
        offset += sum(self._exponents.get(name, 0) for name in names.values())
        outputs = [
            Signal(result.tensor, inputs[0].exponent, offset, result.positions)
            for result in results
        ]
        if rule in linear_parts.NEVER_GROW or self._unsettled.issuperset(call.outputs):
            return outputs
        return [self._settle(output) for output in outputs]

    def _meeting(self, call: Call, inputs: list[Signal]) -> list[Signal]:
        """The inputs of a call: signals with one exponent, and numbers.

        Numbers stay as they are for operators, and for layers that merge signals. To
        any other layer a number is an offset, which has no linear part and becomes 0.
        """
        known = [number in self._numbers for number in call.inputs]
        if not any(known):
            return aligned(inputs)
        signals = [s for s, is_known in zip(inputs, known, strict=True) if not is_known]
        met = aligned(signals) if signals else []
        rest, like = iter(met), (met or inputs)[0]
        met = [
            like._replace(tensor=s.tensor, positions=()) if is_known else next(rest)
            for s, is_known in zip(inputs, known, strict=True)
        ]
        if operators.rule_of(self._network, call, self._numbers) is not None:
            return met
        dtype = self._inputs[0].tensor.dtype
        return [
            s._replace(tensor=tf.zeros_like(s.tensor, dtype)) if is_known else s
            for s, is_known in zip(met, known, strict=True)
        ]

    def _flow_and_gradients(self, tensors: dict[str, Any]) -> tuple[Any, Any, list]:
        weights = [tensors[name] for name in self._names]
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            flow = self.flow(tensors)
        zero = tf.UnconnectedGradients.ZERO
        gradients = tape.gradient(flow.tensor, weights, unconnected_gradients=zero)
        return flow.tensor, flow.exponent, gradients

    def gradients(self, tensors: Mapping[str, Any]) -> tuple[Signal, list[np.ndarray]]:
        """The flow and its gradients.

        Args:
          tensors: Name to tensor with entries >= 0, for each name in the constructor's
            `weights` and `carried`.

        Returns:
          R, as a tensor and an exponent; and a list of arrays, the derivatives of
          `R.tensor` by each of the constructor's `weights`, in their order. A
          derivative times its weight's tensor is the score, divided by `2**R.exponent`.
        """
        with tf.device("CPU"):
            try:
                flow, exponent, gradients = self._pass(dict(tensors))
            except tf.errors.InvalidArgumentError as error:  # of an eager pass
                raise ValueError(
                    f"sizes do not fit in the linear twin ({first_line(error)}): a "
                    "layer has an activation that changes the number of channels"
                ) from error
        return Signal(flow, exponent), [np.asarray(gradient) for gradient in gradients]


def _read_by_scales(network: Network, rules: list[LinearPart]) -> set[int]:
    """The tensors that only layers of `SCALES` read, without the network's outputs.

    The outputs of these layers are scaled, so the tensors themselves need no scaling.
    """
    read = {number for call in network.calls for number in call.inputs}
    others = set(network.outputs)
    for call, rule in zip(network.calls, rules, strict=True):
        if rule not in linear_parts.SCALES:
            others.update(call.inputs)
    return read - others


class Magnitudes(NamedTuple):
    """|w| of a weight, as an array and the exponent of a power of two.

    Attributes:
      array: Float array of the weight's shape, with entries >= 0, in memory that
        TensorFlow can share.
      exponent: |w| is `array * 2**exponent`.
    """

    array: np.ndarray
    exponent: int


def magnitudes(weight: np.ndarray, dtype: str, normalise: bool) -> Magnitudes:
    """|w| of a weight.

    Args:
      weight: Float array.
      dtype: The type to compute in, "float64" or "float32".
      normalise: Whether to scale by a power of two, so that the largest entry is in
        [0.5, 1). If the layer is linear in the weight, this changes no score
        S = w dR/dw.
    """
    exponent = int(np.frexp(np.abs(weight).max(initial=0))[1]) if normalise else 0
    array = aligned_empty(weight.shape, dtype)
    # Scaled before it is cast, because a float64 weight may be too large for float32.
    np.abs(np.ldexp(weight, -exponent), out=array, casting="same_kind")
    return Magnitudes(array, exponent)


def aligned_empty(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array at an address that TensorFlow can work on in place."""
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def aligned_copy(array: np.ndarray) -> np.ndarray:
    """A copy at an address that TensorFlow can work on in place."""
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return copy


def shared_tensor(array: np.ndarray) -> Any:
    """A tensor that shares the memory of an `aligned_empty` array, and its changes."""
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def _spec(name: str, array: np.ndarray, open_axes: Collection[int]) -> Any:
    axes = {axis % array.ndim for axis in open_axes}
    shape = [None if axis in axes else n for axis, n in enumerate(array.shape)]
    return tf.TensorSpec(shape, array.dtype, name)


def _ones(shape: tuple[int | None, ...], dtype: Any) -> Spread:
    if None in shape[1:]:
        raise ValueError(
            f"the model has an input of shape {shape}: SynFlow propagates one input of "
            "ones and needs every size but the batch's; rebuild the model with a fixed "
            "input shape, such as (224, 224, 3)"
        )
    return ones((1, *shape[1:]), dtype)


def leading_to_outputs(network: Network) -> Network:
    """The network without the calls and inputs that lead to none of its outputs.

    A loss that was added to a model, `model.add_loss(...)`, is computed by such calls.
    """
    needed, calls = set(network.outputs), []
    for call in reversed(network.calls):
        if needed.intersection(call.outputs):
            needed.update(call.inputs)
            calls.append(call)
    names = {call.name for call in calls}
    return dataclasses.replace(
        network,
        calls=tuple(reversed(calls)),
        inputs=tuple(number for number in network.inputs if number in needed),
        weights={
            name: variable
            for name, variable in network.weights.items()
            if network.owners[name].name in names
        },
    )


def _linear_parts(
    network: Network,
    exclude: Collection[str] | None,
    numbers: Collection[int],
    product: bool,
) -> list[LinearPart]:
    """The linear part of each call, or an error that names all layers without one."""
    parts = [
        operators.rule_of(network, call, numbers) or linear_parts.rule_of(call, product)
        for call in network.calls
    ]
    unknown: dict[str, list[Call]] = {}
    for call, part in zip(network.calls, parts, strict=True):
        if part is None:
            unknown.setdefault(call.name, []).append(call)
    refused = {
        name: calls
        for name, calls in unknown.items()
        if name not in (exclude or ()) or not keep_shapes(network, calls)
    }
    if refused:
        raise ValueError(refusal(network, refused, exclude, numbers))
    return [part or shapes.identity for part in parts]
