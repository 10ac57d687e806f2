"""Settings and fixtures of all tests; shared networks are in nets.py."""

import gc
import os
from pathlib import Path

# Before TensorFlow is imported: two logical CPU devices need a free choice.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import pytest
import tensorflow as tf
from hypothesis import Phase, settings

from tf_synflow.keras2.imports import keras

# Tests run in as many processes as there are cores: more threads are in the way.
tf.config.threading.set_intra_op_parallelism_threads(1)
tf.config.threading.set_inter_op_parallelism_threads(1)
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0],
    [tf.config.LogicalDeviceConfiguration()] * 2,
)

# `pytest --hypothesis-profile=many` tries more.
# A failing network is not made smaller, which would take minutes.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
settings.register_profile("usual", max_examples=20, phases=PHASES)
settings.register_profile("many", max_examples=300, phases=PHASES)
settings.load_profile("usual")


TESTS = Path(__file__).parent

# The files that take longest.
FIRST = ["test_run.py", "test_callbacks.py", "test_training.py", "test_gradients.py"]
FIRST += ["test_loop.py", "test_shrinking.py", "test_sweep.py", "test_invariants.py"]


# The core, which `-m quick` runs in a minute: these files, without their longest tests.
QUICK = (
    *("masks/", "flow/test_linear_twin.py", "flow/test_paths.py"),
    *("channels/test_groups.py", "channels/test_rules.py", "policy/test_collapse.py"),
    *("pruning/test_ablations.py", "reporting/test_html.py", "test_documents.py"),
)
NOT_QUICK = (
    *("test_the_script", "test_a_network_with_gates", "test_nothing_overflows"),
    "test_effective_weights_of_two_hundred",
)


def pytest_collection_modifyitems(items):
    """Begins with the files that take longest, so that processes end together.

    Warnings are errors here; that a tiny net collapses, or has many depthwise kernels,
    is no fault of a test.
    """
    items.sort(key=lambda item: (*FIRST, item.path.name).index(item.path.name))
    for item in items:
        place = item.path.relative_to(TESTS).as_posix()
        if place.startswith(QUICK) and not item.name.startswith(NOT_QUICK):
            item.add_marker(pytest.mark.quick)
        for kind in ("LayerCollapseWarning", "DenseKernelsWarning"):
            known = f"ignore::tf_synflow.checks.{kind}"
            item.add_marker(pytest.mark.filterwarnings(known))


def pytest_collection_finish(session):
    """The garbage collector goes past what is imported: it stays until the end."""
    gc.collect()
    gc.freeze()


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
