"""Settings and fixtures of all tests; shared networks are in nets.py."""

import os

# Before TensorFlow is imported: two logical CPU devices need a free choice.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest
import tensorflow as tf

from tf_synflow.keras2.imports import keras

# Tests run in as many processes as there are cores: more threads are in the way.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)


def pytest_collection_modifyitems(items):
    """Warnings are errors here; that a tiny net collapses is no fault of a test."""
    for item in items:
        item.add_marker(
            pytest.mark.filterwarnings("ignore::tf_synflow.checks.LayerCollapseWarning")
        )


@pytest.fixture(autouse=True)
def _seeded():
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)


@pytest.fixture
def float64():
    """Models made under it compute in float64, whatever was set before."""
    keras.backend.set_floatx("float64")
    keras.mixed_precision.set_global_policy("float64")
    yield
    keras.backend.set_floatx("float32")
    keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def two_devices():
    """A strategy over two logical CPU devices."""
    # Two strategies in one process would share the keys of TensorFlow's collectives.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"], reduction)
