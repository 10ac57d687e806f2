import numpy as np
import pytest
import tensorflow as tf

from tf_synflow.flow import scaling
from tf_synflow.flow.scaling import Signal


@pytest.mark.parametrize("dtype", [tf.float64, tf.float32])
def test_powers_of_two_are_exact_and_vanish_below_the_range(dtype):
    highest = 1023 if dtype == tf.float64 else 127
    for exponent in (*range(-60, 61), -highest + 1, highest):
        power = scaling.power_of_two(tf.constant(exponent, tf.int64), dtype)
        assert power.dtype == dtype
        assert power.numpy() == 2.0**exponent
    assert scaling.power_of_two(tf.constant(-5000, tf.int64), dtype).numpy() == 0


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_exponents_are_those_of_frexp(dtype):
    values = np.float64([1, 1.99, 2, 3e-30, 7e30, 2.0**-100, 2.0**100]).astype(dtype)
    for value in values:
        exponent = scaling.exponent_of(tf.constant(value))
        assert int(exponent) == np.frexp(value)[1] - 1
    assert int(scaling.exponent_of(tf.constant(0, dtype))) == 0


def test_normalising_changes_no_digit():
    x = np.random.default_rng(0).random((3, 5)) * 1e-200
    signal = scaling.normalised(Signal(tf.constant(x), tf.constant(7, tf.int64)))
    assert 1 <= signal.tensor.numpy().max() < 2
    back = np.ldexp(signal.tensor.numpy(), int(signal.exponent) - 7)
    assert back.tobytes() == x.tobytes()


def test_signals_that_meet_have_the_highest_exponent():
    signals = [
        Signal(tf.constant([1.5], tf.float64), tf.constant(e, tf.int64))
        for e in (3, 1000, -9000)
    ]
    exponents = [int(s.exponent) for s in scaling.aligned(signals)]
    tensors = [float(s.tensor[0]) for s in scaling.aligned(signals)]
    assert exponents == [1000] * 3
    assert tensors == [1.5 * 2.0**-997, 1.5, 0.0]


def test_what_is_known_of_the_exponent_counts_as_well():
    signals = [
        Signal(tf.constant([1.5], tf.float64), tf.constant(exponent, tf.int64), offset)
        for exponent, offset in ((3, 0), (1, 5), (7, -9))
    ]
    exponents = [int(s.whole_exponent) for s in scaling.aligned(signals)]
    tensors = [float(s.tensor[0]) for s in scaling.aligned(signals)]
    assert exponents == [6] * 3
    assert tensors == [1.5 / 8, 1.5, 1.5 / 256]
    same = scaling.normalised(signals[1])
    assert (int(same.exponent), same.offset) == (1, 5)
