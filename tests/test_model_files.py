"""Saved models in and out, and the scripts that prune and report them."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import images, layers, randomise, refusals, residual_net

import tf_synflow
from tf_synflow._compat import keras, tf
from tf_synflow.model_files import load_model, save_model

ROOT = Path(__file__).parents[1]

MODULE = """
import tf_keras, tf_synflow

@tf_keras.saving.register_keras_serializable("tests")
class Double(tf_keras.layers.Layer):
    def call(self, x):
        return 2 * x

tf_synflow.register_linear_part(Double, lambda layer, x, weights: 2 * x)
"""


def run(script, *flags, path=()):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *path])}
    command = [sys.executable, f"scripts/{script}.py", *map(str, flags)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env=environment
    )


@pytest.fixture
def model():
    return randomise(residual_net())


@pytest.mark.parametrize("ending", [".keras", ".h5", ""])
@pytest.mark.parametrize("pruned", [False, True])
def test_every_format_there_and_back(model, tmp_path, ending, pruned):
    if pruned:
        model = tf_synflow.prune(model, 4, iterations=2)
    save_model(tmp_path / f"model{ending}", model)
    again = load_model(tmp_path / f"model{ending}")
    x, _ = images(model, 5)
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), model.predict(x, verbose=0)
    )
    assert tf_synflow.report(again).to_dict() == tf_synflow.report(model).to_dict()
    assert [path.name for path in tmp_path.iterdir()] == [f"model{ending}"]


@pytest.mark.parametrize("ending", [".keras", ".h5", ""])
def test_a_loaded_model_keeps_its_zeros_without_a_callback(tmp_path, ending):
    inputs = keras.Input((5,))
    x = layers.Dense(6, "tanh", name="fc")(inputs)
    model = randomise(keras.Model(inputs, layers.Dense(4, name="out")(x)))
    pruned = tf_synflow.prune(model, 4, criterion="magnitude")
    masks = tf_synflow.get_masks(pruned)
    save_model(tmp_path / f"model{ending}", pruned)
    again = load_model(tmp_path / f"model{ending}")
    again.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    x, y = images(model, 8)
    before = again.get_layer("prune_low_magnitude_fc").layer.kernel.numpy()
    for train in (again.train_on_batch, lambda x, y: again.fit(x, y, verbose=0)):
        train(x, y)
        for name, mask in masks.items():
            layer = again.get_layer(f"prune_low_magnitude_{name.split('/')[0]}").layer
            assert not layer.kernel.numpy()[~mask].any()
    after = again.get_layer("prune_low_magnitude_fc").layer.kernel.numpy()
    assert (after != before)[masks["fc/kernel"]].all()


def test_what_tfmot_left_between_two_steps_is_zero_once_loaded(model, tmp_path):
    pruned = tf_synflow.prune(model, 4, criterion="magnitude")
    mask = tf_synflow.get_masks(pruned)["fc/kernel"]
    kernel = pruned.get_layer("prune_low_magnitude_fc").layer.kernel
    kernel.assign_add(np.ones(kernel.shape))  # as an update without our constraint does
    pruned.save(tmp_path / "model.keras")
    again = load_model(tmp_path / "model.keras")
    found = again.get_layer("prune_low_magnitude_fc").layer.kernel.numpy()
    np.testing.assert_array_equal(found, np.where(mask, kernel.numpy(), 0))


def test_what_is_there_is_left_alone(model, tmp_path):
    (tmp_path / "model.keras").write_text("precious")
    with pytest.raises(FileExistsError, match="exists already and is left alone"):
        save_model(tmp_path / "model.keras", model)
    assert (tmp_path / "model.keras").read_text() == "precious"
    with pytest.raises(FileNotFoundError, match="create it first"):
        save_model(tmp_path / "nowhere" / "model.keras", model)
    with pytest.raises(ValueError, match="ends in .keras or .h5, or has no ending"):
        save_model(tmp_path / "model.tf", model)


def broken(tmp_path, kind):
    path = tmp_path / f"model.{'h5' if kind.endswith('h5') else 'keras'}"
    good = tmp_path / f"good{path.suffix}"
    randomise(residual_net()).save(good)
    whole = good.read_bytes()
    good.unlink()
    contents = {
        "empty": b"",
        "empty h5": b"",
        "truncated": whole[: len(whole) // 2],
        "truncated h5": whole[: len(whole) // 2],
        "foreign": b"PK\x03\x04 not a model at all",
        "text h5": b"hello",
    }
    path.write_bytes(contents[kind])
    return path


@pytest.mark.parametrize(
    "kind", ["empty", "empty h5", "truncated", "truncated h5", "foreign", "text h5"]
)
def test_broken_files_are_refused_in_plain_words(tmp_path, kind):
    with pytest.raises(ValueError, match="cannot read a tf_keras model from"):
        load_model(broken(tmp_path, kind))


def damaged(content, generator):
    """Bytes of a file that was cut, hit, overwritten in places or lost some."""
    content = bytearray(content)
    start = int(generator.integers(len(content)))
    end = min(len(content), start + int(generator.integers(1, 200)))
    kind = generator.integers(4)
    if kind == 0:
        return bytes(content[:start])
    if kind == 1:
        content[start] ^= 1 << int(generator.integers(8))
    elif kind == 2:
        content[start:end] = generator.bytes(end - start)
    else:
        del content[start:end]
    return bytes(content)


@pytest.mark.parametrize(("ending", "count"), [(".npz", 400), (".keras", 100)])
def test_no_damage_goes_unnoticed(model, tmp_path, ending, count):
    """A file is refused in plain words, or says just what it said before."""
    pruned = tf_synflow.prune(model, 4, iterations=2)
    good, bad = tmp_path / f"good{ending}", tmp_path / f"bad{ending}"
    masks = tf_synflow.get_masks(pruned)
    if ending == ".npz":
        tf_synflow.save_masks(good, masks)
    else:
        save_model(good, pruned)
    generator = np.random.default_rng(0)
    refused = 0
    for _ in range(count):
        bad.write_bytes(damaged(good.read_bytes(), generator))
        try:
            if ending == ".npz":
                found = tf_synflow.load_masks(bad)
            else:
                again = load_model(bad)
                assert [w.numpy().tobytes() for w in again.weights] == [
                    w.numpy().tobytes() for w in pruned.weights
                ]
                found = tf_synflow.get_masks(again)
        except ValueError as error:
            assert str(bad) in str(error)
            assert "xpected a" in str(error)  # and what it should be
            refused += 1
            continue
        assert list(found) == list(masks)
        assert all((found[name] == masks[name]).all() for name in masks)
    assert refused > 0.8 * count
    assert sorted(p.name for p in tmp_path.iterdir()) == [bad.name, good.name]


@pytest.mark.parametrize("cut", range(0, 100, 5))
def test_a_cut_h5_file_is_refused(model, tmp_path, cut):
    save_model(tmp_path / "model.h5", model)
    content = (tmp_path / "model.h5").read_bytes()
    (tmp_path / "model.h5").write_bytes(content[: len(content) * cut // 100])
    with pytest.raises(ValueError, match="cannot read a tf_keras model from"):
        load_model(tmp_path / "model.h5")


def test_missing_and_foreign_models_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model at"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot read"):
        load_model(tmp_path / "folder")


def test_layers_of_ones_own_need_the_module_that_registers_them(tmp_path, monkeypatch):
    (tmp_path / "own_layers.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    own = importlib.import_module("own_layers")
    inputs = keras.Input((5,))
    x = own.Double()(layers.Dense(6)(inputs))
    keras.Model(inputs, layers.Dense(3)(x)).save(tmp_path / "own.keras")
    flags = [f"--model={tmp_path / 'own.keras'}", "--ratio=2", "--iterations=3"]
    flags.append(f"--output={tmp_path / 'pruned.keras'}")
    done = run("prune", *flags, path=[str(tmp_path)])
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "name the module that registers them" in done.stderr
    done = run("prune", *flags, "--import=own_layers", path=[str(tmp_path)])
    assert done.returncode == 0, done.stderr
    assert "24 of 48 kept" in done.stdout


@keras.saving.register_keras_serializable("tests_files")
class QDense(layers.Dense):
    def get_prunable_weights(self):
        return [self.kernel]


@keras.saving.register_keras_serializable("tests_files")
class Cube(keras.regularizers.Regularizer):
    def __call__(self, x):
        return tf.reduce_sum(tf.abs(x) ** 3)

    def get_config(self):
        return {}


@keras.saving.register_keras_serializable("tests_files")
class Limit(keras.constraints.Constraint):
    def __call__(self, w):
        return tf.clip_by_value(w, -9.0, 9.0)


@keras.saving.register_keras_serializable("tests_files")
class Ramp(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None, **more):
        return tf.reshape(tf.range(np.prod(shape), dtype="float32"), shape)


@keras.saving.register_keras_serializable("tests_files")
def double(x):
    return 2 * x


@pytest.mark.parametrize("ending", [".keras", ".h5"])
def test_registered_classes_in_pruned_layers_load_again(tmp_path, ending):
    inputs = keras.Input((3,))
    x = QDense(4, name="own")(inputs)
    outputs = layers.Dense(
        2,
        name="out",
        activation=double,
        kernel_initializer=Ramp(),
        kernel_constraint=Limit(),
        activity_regularizer=Cube(),
    )(x)
    model = tf_synflow.prune(keras.Model(inputs, outputs), 2, criterion="magnitude")
    save_model(tmp_path / f"model{ending}", model)
    again = load_model(tmp_path / f"model{ending}")
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("float32")
    np.testing.assert_array_equal(again(x), model(x))
    np.testing.assert_array_equal(again.losses, model.losses)
    inner = [layer.layer for layer in again.layers[1:]]
    assert [type(layer) for layer in inner] == [QDense, layers.Dense]
    assert inner[1].activation is double
    assert isinstance(inner[1].kernel_initializer, Ramp)
    for name, mask in tf_synflow.get_masks(model).items():
        np.testing.assert_array_equal(tf_synflow.get_masks(again)[name], mask)


def test_prune_and_report_from_the_command_line(model, tmp_path):
    save_model(tmp_path / "big", model)
    output = tmp_path / "small.h5"
    done = run(
        "prune",
        *(f"--model={tmp_path / 'big'}", f"--output={output}", "--ratio=0.75"),
        "--iterations=5",
    )
    assert done.returncode == 0, done.stderr
    pruned = load_model(output)
    expected = tf_synflow.PruningPolicy(iterations=5).masks(model, 4)
    saved = tf_synflow.load_masks(f"{output}.masks.npz")
    for name, mask in tf_synflow.get_masks(pruned).items():
        np.testing.assert_array_equal(mask, expected[name])
        np.testing.assert_array_equal(saved[name], expected[name])
    report = json.loads(Path(f"{output}.report.json").read_text())
    assert report == tf_synflow.report(pruned).to_dict()
    again = run(
        "report",
        *(f"--model={output}", f"--json={tmp_path / 'r.json'}"),
        f"--plot={tmp_path / 'r.png'}",
    )
    assert again.returncode == 0, again.stderr
    assert again.stdout == done.stdout
    assert json.loads((tmp_path / "r.json").read_text()) == report
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_stripped_output_needs_keras_alone(model, tmp_path):
    save_model(tmp_path / "big.keras", model)
    output = tmp_path / "plain.keras"
    done = run(
        "prune",
        *(f"--model={tmp_path / 'big.keras'}", f"--output={output}", "--ratio=4"),
        *("--strip", "--criterion=magnitude"),
    )
    assert done.returncode == 0, done.stderr
    program = (
        "import sys, tf_keras\n"
        "tf_keras.models.load_model(sys.argv[1], compile=False)\n"
        "assert not {'tf_synflow', 'tensorflow_model_optimization'} & set(sys.modules)"
    )
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    command = [sys.executable, "-c", program, str(output)]
    subprocess.run(command, check=True, env=environment)


def test_nothing_is_left_half_written_when_the_disk_is_full(tmp_path):
    """Writes fail midway, past a limit on the size of files."""
    inputs = keras.Input((300,))
    big = keras.Model(inputs, layers.Dense(300)(inputs))
    big.save(tmp_path / "big.keras")
    program = (
        "import resource, signal, sys\n"
        "from tf_synflow.model_files import load_model, save_model\n"
        "model = load_model(sys.argv[1])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "try:\n"
        "    save_model(sys.argv[2], model)\n"
        "except OSError as error:\n"
        "    sys.exit('refused')\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "big.keras")]
    command.append(str(tmp_path / "out.keras"))
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert "refused" in done.stderr, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["big.keras"]


def test_bad_flags_leave_nothing_behind(model, tmp_path):
    save_model(tmp_path / "model.keras", model)
    flags = {"model": tmp_path / "model.keras", "output": tmp_path / "out.keras"}
    changes = {
        "there is no model at 'nothing.keras'": {"model": "nothing.keras"},
        "create it first": {"output": "nowhere/out.keras"},
        "the highest ratio": {"ratio": "1e9"},
        "the model has no such": {"exclude": "conv9"},
    }
    answers = refusals(
        "prune",
        [
            [f"--{name}={value}" for name, value in {**flags, "ratio": 2, **c}.items()]
            for c in changes.values()
        ],
    )
    for message, answer in zip(changes, answers, strict=True):
        assert message in answer
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]
