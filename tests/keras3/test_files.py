"""Keras 3 models in files: masks travel, and what a file may do is bounded."""

import json
import os
import pickle
import subprocess
import sys
import zipfile

import keras
import numpy as np
import programs
import pytest

import tf_synflow
from tf_synflow.keras3.constraints import KeepPruned

layers = keras.layers

# Keras says so of every .h5 file.
pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")


def pruned_net():
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(16, "relu", name="d")], name="inner"
    )
    inputs = keras.Input((6,), name="x")
    x = layers.Dense(6, "relu", name="a", kernel_constraint="non_neg")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="out")(inner(x)), name="net")
    return tf_synflow.prune(model, 5, iterations=5, progress=False)


def same(model, other):
    """Same outputs and masks."""
    x = np.random.default_rng(0).random((4, 6)).astype("float32")
    np.testing.assert_array_equal(model(x), other(x))
    one, two = tf_synflow.get_masks(model), tf_synflow.get_masks(other)
    assert list(one) == list(two)
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


@pytest.mark.parametrize("ending", ["keras", "h5"])
@pytest.mark.parametrize("load", [tf_synflow.load_model, keras.models.load_model])
def test_masks_travel_in_files(tmp_path, ending, load):
    model = pruned_net()
    model.save(tmp_path / f"model.{ending}")
    again = load(tmp_path / f"model.{ending}")
    same(model, again)
    other = again.get_layer("a").kernel_constraint.other
    assert isinstance(other, keras.constraints.NonNeg)
    again.compile("adam", "mse")
    again.fit(np.ones((4, 6)), np.ones((4, 3)), epochs=2, verbose=0)
    for name, mask in tf_synflow.get_masks(model).items():
        kernel = again
        for part in name.split("/")[:-1]:
            kernel = kernel.get_layer(part)
        assert not kernel.kernel.numpy()[~mask].any()


@pytest.mark.parametrize(
    "copy",
    [
        lambda model: pickle.loads(pickle.dumps(model)),
        lambda model: with_weights(keras.models.clone_model(model), model),
        lambda model: with_weights(keras.Model.from_config(model.get_config()), model),
    ],
    ids=["pickle", "clone_model", "config"],
)
def test_masks_travel_in_copies(copy):
    model = pruned_net()
    same(model, copy(model))


def with_weights(model, other):
    model.set_weights(other.get_weights())
    return model


def test_weights_alone_fit_the_plain_model(tmp_path):
    model = pruned_net()
    model.save_weights(tmp_path / "w.weights.h5")
    plain = tf_synflow.strip(model)
    plain.set_weights([np.ones_like(weight) for weight in plain.get_weights()])
    plain.load_weights(tmp_path / "w.weights.h5")
    for one, other in zip(plain.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


_WITH_KERAS_ALONE = """
import sys
class Refused:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tf_synflow", "tf_keras"):
            raise ImportError(name)
sys.meta_path.insert(0, Refused())
import keras, numpy as np
for path in sys.argv[1:]:
    model = keras.models.load_model(path)
    print(repr(np.asarray(model(np.ones((1, 6), "float32"))).tolist()))
"""


def test_a_stripped_model_loads_where_there_is_only_keras(tmp_path):
    plain = tf_synflow.strip(pruned_net())
    plain.save(tmp_path / "plain.keras")
    plain.save(tmp_path / "plain.h5")
    paths = [str(tmp_path / "plain.keras"), str(tmp_path / "plain.h5")]
    done = subprocess.run(
        [sys.executable, "-c", _WITH_KERAS_ALONE, *paths],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 0, done.stderr
    want = plain(np.ones((1, 6), "float32")).numpy()
    for line in done.stdout.splitlines()[-2:]:
        np.testing.assert_allclose(json.loads(line), want, rtol=1e-6)


def test_a_mask_is_packed_into_an_eighth_of_its_size_or_less():
    mask = np.random.default_rng(0).random((500, 300)) < 0.1
    constraint = KeepPruned(mask)
    config = json.loads(json.dumps(constraint.get_config()))
    assert len(config["mask"]["bits"]) < mask.size / 8
    np.testing.assert_array_equal(KeepPruned.from_config(config).mask, mask)
    for size in (0, 1, 7, 8, 9):
        small = np.arange(size) % 2 == 0
        again = KeepPruned.from_config(KeepPruned(small).get_config()).mask
        np.testing.assert_array_equal(again, small)


def rewritten(path, target, change):
    """A .keras file with another configuration."""
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    change(config)
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(target, "w") as archive:
        for name, part in parts.items():
            archive.writestr(name, part)
    return target


def layer(config, name):
    (found,) = (c for c in config["config"]["layers"] if c["config"]["name"] == name)
    return found["config"]


def damage_mask(config):
    layer(config, "out")["kernel_constraint"]["config"]["mask"]["bits"] = "AAAA"


def widen_mask(config):
    layer(config, "out")["kernel_constraint"]["config"]["mask"]["shape"] = [10**9, 99]


def another_mask(config):
    layer(config, "out")["kernel_constraint"]["config"]["mask"] = 5


def mask_of_another_shape(config):
    other = layer(config, "a")["kernel_constraint"]["config"]["mask"]
    layer(config, "out")["kernel_constraint"]["config"]["mask"] = other


def widen_layer(config):
    layer(config, "out")["units"] = 10**9


def run_code(config):
    layer(config, "out")["activation"] = {
        "class_name": "function",
        "module": "os",
        "config": "system",
        "registered_name": "system",
    }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (damage_mask, "cannot read a Keras 3 model"),
        (widen_mask, "its masks would take .* bytes of memory"),
        (another_mask, "cannot read a Keras 3 model"),
        (mask_of_another_shape, "the mask of 'out/kernel' has the shape"),
        (widen_layer, "its variables would take .* bytes of memory"),
        (run_code, "cannot read a Keras 3 model"),
    ],
)
def test_files_that_are_damaged_or_mean_harm_are_refused(tmp_path, change, words):
    pruned_net().save(tmp_path / "model.keras")
    path = rewritten(tmp_path / "model.keras", tmp_path / "bad.keras", change)
    with pytest.raises(ValueError, match=words) as refused:
        tf_synflow.load_model(path)
    assert "bad.keras" in str(refused.value)
    assert keras.Variable.__init__.__qualname__.endswith("Variable.__init__")


def test_a_truncated_file_is_refused(tmp_path):
    pruned_net().save(tmp_path / "model.keras")
    whole = (tmp_path / "model.keras").read_bytes()
    (tmp_path / "half.keras").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"half.keras"):
        tf_synflow.load_model(tmp_path / "half.keras")


def test_a_lambda_with_code_needs_trust(tmp_path):
    inputs = keras.Input((6,))
    x = layers.Lambda(lambda x: 2 * x, output_shape=(6,))(inputs)
    model = keras.Model(inputs, layers.Dense(3)(x))
    tf_synflow.prune(model, 2, criterion="magnitude").save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode=False"):
        tf_synflow.load_model(tmp_path / "model.keras")
    again = tf_synflow.load_model(tmp_path / "model.keras", safe_mode=False)
    assert tf_synflow.get_masks(again)


def test_layers_of_ones_own_come_from_the_module_that_is_named(tmp_path, monkeypatch):
    (tmp_path / "their_layers.py").write_text(
        "import keras\n"
        "class Twice(keras.layers.Layer):\n"
        "    def call(self, x):\n"
        "        return 2 * x\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from their_layers import Twice

    inputs = keras.Input((6,))
    model = keras.Model(inputs, layers.Dense(3)(Twice()(inputs)))
    model.save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="name the module that registers them"):
        tf_synflow.load_model(tmp_path / "model.keras")
    again = tf_synflow.load_model(tmp_path / "model.keras", ["their_layers"])
    assert isinstance(again.layers[1], Twice)


def test_a_sequential_model_that_was_never_called_is_exported(tmp_path):
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    assert tf_synflow.export(model, tmp_path / "m.tflite").difference < 1e-6


def test_export_writes_files_that_compute_what_keras_does(tmp_path):
    inputs = {"b": keras.Input((6,), name="b"), "a": keras.Input((6,), name="a")}
    x = layers.Dense(8, "relu", name="d")(inputs["a"] + 2 * inputs["b"])
    model = keras.Model(inputs, {"y": layers.Dense(2)(x), "x": layers.Dense(3)(x)})
    pruned = tf_synflow.prune(model, 2, criterion="magnitude")
    for path in (tmp_path / "model.tflite", tmp_path / "folder"):
        done = tf_synflow.export(pruned, path)
        assert done.difference <= 1e-6 < 0.1 < done.largest_output
        assert done.nonzero < done.parameters == model.count_params()


def test_the_programs_take_keras_3_files(tmp_path):
    model = tf_synflow.models.build("resnet20", (8, 8, 1), 10, keras="keras")
    model.save(tmp_path / "model.keras")
    model_flag = f"--model={tmp_path / 'model.keras'}"
    pruned = tmp_path / "pruned.keras"
    to_prune = ["prune", model_flag, "--ratio=10", "--criterion=magnitude"]
    *done, folder = programs.answers(
        [
            [*to_prune, f"--output={pruned}"],
            ["report", f"--model={pruned}"],
            ["export", f"--model={pruned}", f"--output={tmp_path / 'm.tflite'}"],
            [*to_prune, f"--output={tmp_path / 'folder'}"],
        ]
    )
    for _, error in done:
        assert error.endswith("exit 0\n"), error
    assert "27,061 of 270,608 kept" in done[0][0]
    assert "27,061 of 270,608 kept" in done[1][0]
    assert (tmp_path / "m.tflite").stat().st_size < pruned.stat().st_size / 2
    assert "Keras 3 saves models as .keras or .h5" in programs.refused([folder])[0]
    assert not (tmp_path / "folder").exists()
    masks = tf_synflow.load_masks(f"{pruned}.masks.npz")
    for name, mask in tf_synflow.get_masks(tf_synflow.load_model(pruned)).items():
        np.testing.assert_array_equal(mask, masks[name])
