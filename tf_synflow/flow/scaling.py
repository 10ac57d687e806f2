"""Exact powers of two, and the exponents that keep signals near 1.

A number times a power of two keeps all its digits. So a signal may be scaled freely, as
long as every path to the output is scaled by the same factor. Each signal of the linear
twin is therefore a pair: a tensor whose largest entry is near 1, and the whole number e
for which `tensor * 2**e` is the true signal.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import tensorflow as tf

# For each float type: the integer type of its bits, its digits after the point, and the
# bias of its exponent.
_FORMATS = {tf.float64: (tf.int64, 52, 1023), tf.float32: (tf.int32, 23, 127)}


class Signal(NamedTuple):
    """A tensor, and the power of two that multiplies it.

    Attributes:
      tensor: Float tensor with entries >= 0.
      exponent: Scalar integer tensor e; the true signal is `tensor * 2**(e + offset)`.
      offset: The part of the exponent that is known before the pass, as a Python
        integer: TensorFlow takes hours to fold a chain of thousands of constants.
      positions: The lists of the tensor's positions; see `positions.Spread`.
    """

    tensor: Any
    exponent: Any
    offset: int = 0
    positions: tuple = ()

    @property
    def whole_exponent(self) -> Any:
        """The exponent with its offset, as a tensor."""
        return self.exponent + self.offset if self.offset else self.exponent


def power_of_two(exponent: Any, dtype: Any) -> Any:
    """2**exponent, put together from its bits: exact, and 0 where it would underflow.

    `exponent` is an integer tensor below the type's largest exponent.
    """
    bits, digits, bias = _FORMATS[dtype]
    biased = tf.cast(tf.clip_by_value(exponent + bias, 0, 2 * bias), bits)
    return tf.bitcast(tf.bitwise.left_shift(biased, tf.constant(digits, bits)), dtype)


def exponent_of(x: Any) -> Any:
    """floor(log2(x)) of a scalar tensor > 0, from its bits; 0 for x = 0."""
    bits, digits, bias = _FORMATS[x.dtype]
    biased = tf.bitwise.right_shift(tf.bitcast(x, bits), tf.constant(digits, bits))
    return tf.where(x > 0, tf.cast(biased, tf.int64) - bias, 0)


def normalised(signal: Signal) -> Signal:
    """The same signal with its largest entry in [1, 2); a zero signal is unchanged."""
    axes = list(range(signal.tensor.shape.rank))
    top = tf.stop_gradient(tf.reduce_max(signal.tensor, axes))
    factor, exponent = _shift(top, signal.exponent)
    return signal._replace(tensor=signal.tensor * factor, exponent=exponent)


# A TensorFlow function of its own, so that a trace has only one call for each layer.
@tf.function(autograph=False)
def _shift(top: Any, exponent: Any) -> tuple[Any, Any]:
    shift = exponent_of(top)
    return power_of_two(-shift, top.dtype), exponent + shift


def aligned(signals: Sequence[Signal]) -> list[Signal]:
    """The same signals, all with the highest exponent, so that they can be added up."""
    if len(signals) == 1:
        return list(signals)
    offset = signals[0].offset
    exponents = [s._replace(offset=s.offset - offset).whole_exponent for s in signals]
    highest = tf.reduce_max(tf.stack(exponents))
    return [
        Signal(
            signal.tensor * power_of_two(exponent - highest, signal.tensor.dtype),
            highest,
            offset,
            signal.positions,
        )
        for signal, exponent in zip(signals, exponents, strict=True)
    ]
