"""What the tests share."""

import json
import os
import subprocess
import sys
from pathlib import Path

# Before TensorFlow is imported: two logical CPU devices need a free choice.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
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

layers = keras.layers
ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items):
    """Warnings are errors here; that a tiny net collapses is no fault of a test."""
    for item in items:
        item.add_marker(
            pytest.mark.filterwarnings("ignore::tf_synflow.LayerCollapseWarning")
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


def residual_net(classes=4):
    """Conv, BatchNorm, a residual Add, a strided Conv, Flatten, Dense: 4x4x2 images."""
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    y = layers.Conv2D(3, 1, name="conv2")(x)
    x = layers.ReLU()(layers.Add()([x, y]))
    x = layers.Conv2D(4, 2, strides=2, name="conv3")(x)
    outputs = layers.Dense(classes, name="fc")(layers.Flatten()(x))
    return keras.Model(inputs, outputs, name="residual_net")


def randomise(model, seed=0):
    """Gives every variable a random value, variances a positive one."""
    generator = np.random.default_rng(seed)
    for variable in model.weights:
        value = generator.standard_normal(variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.name else value)
    return model


def images(model, count, seed=0):
    """Random images and labels that fit the model."""
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((count, *model.input_shape[1:])).astype("float32")
    return x, generator.integers(0, model.output_shape[-1], count)


# Runs a script again and again in one process, as if from the command line.
_AGAIN_AND_AGAIN = """
import importlib, json, sys
from absl import flags
sys.path.insert(0, "scripts")
name, commands = sys.argv[1], json.loads(sys.argv[2])
sys.argv = [name]  # absl asks it whose flags are whose
script = importlib.import_module(name)
for argv in commands:
    flags.FLAGS.unparse_flags()
    for flag in flags.FLAGS:
        flags.FLAGS[flag].unparse()
    for stream in (sys.stdout, sys.stderr):
        print("#" * 9, file=stream, flush=True)
    try:
        script.main(flags.FLAGS([name, *argv]))
        print("exit 0", file=sys.stderr)
    except (SystemExit, flags.Error) as error:
        print("exit", error, file=sys.stderr)
"""


def answers(script, commands):
    """What a script of scripts/ prints for each list of flags: (stdout, stderr).

    The last line of stderr is "exit", and with what.
    """
    done = subprocess.run(
        [sys.executable, "-c", _AGAIN_AND_AGAIN, script, json.dumps(commands)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    streams = [s.split("#" * 9 + "\n")[1:] for s in (done.stdout, done.stderr)]
    return list(zip(*streams, strict=True))


def refusals(script, commands):
    """What a script says to each list of flags that it should refuse."""
    said = [error for _, error in answers(script, commands)]
    assert len(said) == len(commands)
    assert not [error for error in said if error.endswith("exit 0\n")]
    return said


def masked_by_hand(build, model, masks):
    """A second model from `build` with the weights of `model`, pruned ones zeroed."""
    twin = build()
    twin.set_weights(model.get_weights())
    for name, mask in masks.items():
        *path, short = name.split("/")
        layer = twin
        for part in path:
            layer = layer.get_layer(part)
        [kernel] = [w for w in layer.weights if w.name.endswith(f"/{short}:0")]
        kernel.assign(kernel.numpy() * mask)
    return twin
