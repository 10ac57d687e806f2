"""Saved models in and out, and the scripts that prune and report them."""

import contextlib
import importlib
import io
import json
import os
import resource
import sys
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf
from nets import images, layers, randomise, residual_net
from programs import answers, largest_file, refused, run

import tf_synflow
from tf_synflow.files.models import load_model, save_model
from tf_synflow.keras2.imports import keras

MODULE = """
import tf_keras, tf_synflow

@tf_keras.saving.register_keras_serializable("tests")
class Double(tf_keras.layers.Layer):
    def call(self, x):
        return 2 * x

tf_synflow.register_linear_part(Double, lambda layer, x, weights: 2 * x)
"""


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
    with pytest.raises(ValueError, match="cannot read a Keras model from"):
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
    with pytest.raises(ValueError, match="cannot read a Keras model from"):
        load_model(tmp_path / "model.h5")


def test_missing_and_foreign_models_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no model at"):
        load_model(tmp_path / "none.keras")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError, match="cannot read"):
        load_model(tmp_path / "folder")


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


EVIL = """
import pathlib
marker = pathlib.Path(__file__).with_name("marker")
marker.touch()  # as soon as it is imported
def run(x, *args, **kwargs):
    return x
class Run:
    @classmethod
    def from_config(cls, config):
        return cls()
"""

RUN = {
    "class_name": "function",
    "module": "evil",
    "config": "run",
    "registered_name": "run",
}

SYSTEM = RUN | {"config": "system", "registered_name": "system"}


def rewritten(path, change):
    """A `.keras` file with its configuration changed in place."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"]["layers"])
    members["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def names_a_lambda(entries, marker):
    entries[1] |= {"class_name": "Lambda", "module": "keras.layers"}
    entries[1]["config"] = {
        "name": "fc",
        "function": RUN,
        "function_type": "function",
        "module": None,
        "output_shape": None,
        "output_shape_type": "raw",
        "output_shape_module": None,
        "arguments": {},
    }


def names_a_function_by_another_key(entries, marker):
    """Where Keras knows a name, it takes the module from the entry all the same."""
    entries[1]["config"]["activation"] = RUN | {"registered_name": "relu"}


def names_a_class(entries, marker):
    """In what a model inside the model is to be compiled with."""
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(3)], name="fc")
    entries[1] |= keras.saving.serialize_keras_object(inner)
    run = {"class_name": "Run", "module": "evil", "config": {}}
    entries[1]["compile_config"] = {"optimizer": run}


def writes_a_file(entries, marker):
    """An operator on constants alone is run as soon as the model is built."""
    entries[1] = {
        "class_name": "TFOpLambda",
        "module": "keras.src.layers.core.tf_op_layer",
        "name": "fc",
        "registered_name": "TFOpLambda",
        "config": {"name": "fc", "function": "io.write_file"},
        "inbound_nodes": [["_CONSTANT_VALUE", -1, str(marker), {"contents": "!"}]],
    }


@pytest.mark.parametrize(
    "change",
    [
        names_a_lambda,
        names_a_function_by_another_key,
        names_a_class,
        writes_a_file,
    ],
)
def test_a_keras_file_of_a_stranger_runs_nothing(change, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(EVIL)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    inputs = keras.Input((3,))
    keras.Model(inputs, layers.Dense(3, name="fc")(inputs)).save(tmp_path / "m.keras")
    rewritten(tmp_path / "m.keras", lambda e: change(e, tmp_path / "marker"))
    with contextlib.suppress(ValueError):
        load_model(tmp_path / "m.keras")
    assert not (tmp_path / "marker").exists() and "evil" not in sys.modules
    with pytest.raises(ValueError, match="could do harm this way"):
        load_model(tmp_path / "m.keras")


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "m"])
def test_bytecode_is_not_run_in_any_format(name, tmp_path):
    """A .h5 file that is called .keras among them, which Keras reads as .h5."""
    marker = str(tmp_path / "marker")
    inputs = keras.Input((3,))
    x = layers.Lambda(lambda x, path: (open(path, "w").close(), x)[1])
    x.arguments = {"path": marker}
    model = keras.Model(inputs, layers.Dense(2)(x(inputs)))
    if name == "m.keras":
        model.save(tmp_path / "m.h5")
        (tmp_path / "m.h5").rename(tmp_path / "m.keras")
    else:
        model.save(tmp_path / name)
    os.remove(marker)
    with contextlib.suppress(ValueError):
        load_model(tmp_path / name)
    assert not os.path.exists(marker)
    with pytest.raises(ValueError, match="could do harm this way|is a zip archive"):
        load_model(tmp_path / name)
    if name == "m.h5":  # of the user's own
        load_model(tmp_path / name, safe_mode=False)
        assert os.path.exists(marker)


def test_what_the_user_vouches_for_is_read(tmp_path, monkeypatch):
    (tmp_path / "good.py").write_text(
        "import tf_keras\n"
        "from os import system\n"
        "def twice(x):\n    return 2 * x\n"
        "class Twice(tf_keras.layers.Dense):\n"
        "    def call(self, x):\n        return 2 * super().call(x)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    good = importlib.import_module("good")
    inputs = keras.Input((3,))
    data = np.arange(6, dtype="float32").reshape(2, 3)
    for file in ("m.h5", "m.keras"):
        # Keras does not find a function again that it wrote to .h5.
        activation = good.twice if file == "m.keras" else None
        x = good.Twice(4, activation=activation)(inputs)
        model = keras.Model(inputs, layers.Dense(2)(x))
        model.compile("sgd", good.twice)  # not read, as the model comes uncompiled
        model.save(tmp_path / file)
        with pytest.raises(ValueError, match="could do harm|cannot read"):
            load_model(tmp_path / file)
        given = {"Twice": good.Twice, "twice": good.twice}
        again = load_model(tmp_path / file, custom_objects=given)
        np.testing.assert_array_equal(again(data), model(data))


def test_a_lambda_of_a_function_that_the_user_names_is_read(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(EVIL + "\nfrom os import system\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "evil", raising=False)
    inputs = keras.Input((3,))
    keras.Model(inputs, layers.Dense(3, name="fc")(inputs)).save(tmp_path / "m.keras")
    rewritten(tmp_path / "m.keras", lambda e: names_a_lambda(e, None))
    model = load_model(tmp_path / "m.keras", custom_objects={"run": lambda x: 3 * x})
    np.testing.assert_array_equal(model(np.ones((1, 3), "float32")), [[3, 3, 3]])
    assert not (tmp_path / "marker").exists()
    model = load_model(tmp_path / "m.keras", modules=["evil"])
    np.testing.assert_array_equal(model(np.ones((1, 3), "float32")), [[1, 1, 1]])
    rewritten(tmp_path / "m.keras", lambda e: e[1]["config"].update(function=SYSTEM))
    with pytest.raises(ValueError, match="'system' of the module 'evil'"):
        load_model(tmp_path / "m.keras", modules=["evil"])


def bomb(path, kind):
    """A few kilobytes that declare far more than 512 MiB."""
    inputs = keras.Input((3,))
    keras.Model(inputs, layers.Dense(2, name="fc")(inputs)).save(path)
    if kind == "config":
        rewritten(path, lambda e: e[1]["config"].update(units=200 * 2**20))
        return
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if kind == "archive":
        members["more"] = bytes(2**20 + 12345)
    else:
        weights = io.BytesIO(members["model.weights.h5"])
        with h5py.File(weights, "a") as file:
            if kind == "weights":
                file.create_dataset("big", (200 * 2**20,), "f4", chunks=(2**20,))
            else:
                file["elsewhere"] = h5py.ExternalLink("/etc/hostname", "/")
        members["model.weights.h5"] = weights.getvalue()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    if kind == "archive":  # the test spares itself the other 599 MB
        old, new = (n.to_bytes(4, "little") for n in (2**20 + 12345, 600 * 2**20))
        path.write_bytes(path.read_bytes().replace(old, new))


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("archive", "would unpack to 629,[0-9,]* bytes; at most 536,870,912"),
        ("weights", "weights would take 838,860,[0-9,]* bytes of memory; at most"),
        ("config", "variables would take 2,516,[0-9,]* bytes of memory; at most"),
        ("link", "'elsewhere' lies in another file"),
    ],
)
def test_a_small_file_cannot_fill_the_memory(kind, message, tmp_path):
    bomb(tmp_path / "m.keras", kind)
    assert (tmp_path / "m.keras").stat().st_size < 100_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message):
        load_model(tmp_path / "m.keras")
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 100_000  # kilobytes


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A model in three files, and whatever programs make of them."""
    folder = tmp_path_factory.mktemp("programs")
    model = randomise(residual_net())
    for name in ("big", "big.keras"):
        save_model(folder / name, model)
    (folder / "refused").mkdir()
    save_model(folder / "refused" / "model.keras", model)
    return model, folder


@pytest.fixture(scope="module")
def stripped(big):
    """A file that a program of its own has pruned and stripped."""
    _, folder = big
    output = folder / "plain.keras"
    done = run(
        "prune",
        *(f"--model={folder / 'big.keras'}", f"--output={output}", "--ratio=4"),
        *("--strip", "--criterion=magnitude"),
    )
    assert done.returncode == 0, done.stderr
    return output


# Loads a model with Keras alone, and notes what of ours was imported for it.
LOADS_WITH_KERAS_ALONE = """
import json, os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import tf_keras
tf_keras.models.load_model({model!r}, compile=False)
ours = {{"tf_synflow", "tensorflow_model_optimization"}} & set(sys.modules)
with open({found!r}, "w") as file:
    json.dump(sorted(ours), file)
del os.environ["TF_USE_LEGACY_KERAS"]
"""

BAD_FLAGS = {
    "there is no model at 'nothing.keras'": {"model": "nothing.keras"},
    "create it first": {"output": "nowhere/out.keras"},
    "the highest ratio": {"ratio": "1e9"},
    "the model has no such": {"exclude": "conv9"},
}


@pytest.fixture(scope="module")
def said(big, stripped):
    """What programs answer that run in one process, one after the other, by name."""
    _, folder = big
    own = [f"--model={folder / 'own.keras'}", "--ratio=2", "--iterations=3"]
    own.append(f"--output={folder / 'own_pruned.keras'}")
    output = folder / "small.h5"
    good = {
        "model": folder / "refused" / "model.keras",
        "output": folder / "refused" / "out.keras",
        "ratio": 2,
    }
    commands = {
        "prune": [
            *("prune", f"--model={folder / 'big'}", f"--output={output}"),
            *("--ratio=0.75", "--iterations=5"),
        ],
        "report": [
            *("report", f"--model={output}", f"--json={folder / 'r.json'}"),
            *(f"--plot={folder / 'r.png'}", f"--html={folder / 'r.html'}"),
        ],
        "unknown layer": ["prune", *own],
        "own layer": ["prune", *own, "--import=own_layers"],
    }
    for message, change in BAD_FLAGS.items():
        flags = {**good, **change}
        commands[message] = ["prune", *(f"--{n}={v}" for n, v in flags.items())]
    (folder / "own_layers.py").write_text(MODULE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        module = importlib.import_module("own_layers")
        inputs = keras.Input((5,))
        x = module.Double()(layers.Dense(6)(inputs))
        keras.Model(inputs, layers.Dense(3)(x)).save(folder / "own.keras")
    found = str(folder / "imported.json")
    before = LOADS_WITH_KERAS_ALONE.format(model=str(stripped), found=found)
    answered = answers(commands.values(), [str(folder)], before)
    return dict(zip(commands, answered, strict=True))


def test_prune_and_report_from_the_command_line(big, said):
    model, folder = big
    output = folder / "small.h5"
    pruned_said, error = said["prune"]
    assert error.endswith("exit 0\n"), error
    pruned = load_model(output)
    expected = tf_synflow.PruningPolicy(iterations=5).masks(model, 4)
    saved = tf_synflow.load_masks(f"{output}.masks.npz")
    for name, mask in tf_synflow.get_masks(pruned).items():
        np.testing.assert_array_equal(mask, expected[name])
        np.testing.assert_array_equal(saved[name], expected[name])
    report = json.loads(Path(f"{output}.report.json").read_text())
    assert report == tf_synflow.report(pruned).to_dict()
    again, error = said["report"]
    assert error.endswith("exit 0\n"), error
    assert again == pruned_said
    assert json.loads((folder / "r.json").read_text()) == report
    assert (folder / "r.png").read_bytes().startswith(b"\x89PNG")
    tf_synflow.report(pruned).to_html(folder / "same.html")
    page = (folder / "r.html").read_text("utf-8")
    assert page == (folder / "same.html").read_text("utf-8")


def test_a_stripped_output_needs_keras_alone(big, said):
    """In the process that has answered since, before it imported anything else."""
    assert json.loads((big[1] / "imported.json").read_text()) == []


def test_layers_of_ones_own_need_the_module_that_registers_them(said):
    error = said["unknown layer"][1]
    assert not error.endswith("exit 0\n") and "Traceback" not in error
    assert "name the module that registers them" in error
    stdout, error = said["own layer"]
    assert error.endswith("exit 0\n"), error
    assert "24 of 48 kept" in stdout


def test_bad_flags_leave_nothing_behind(big, said):
    for message, answer in zip(
        BAD_FLAGS, refused(said[m] for m in BAD_FLAGS), strict=True
    ):
        assert message in answer
    names = [path.name for path in (big[1] / "refused").iterdir()]
    assert names == ["model.keras"]


def test_nothing_is_left_half_written_when_the_disk_is_full(tmp_path):
    """Writes fail midway, past a limit on the size of files."""
    inputs = keras.Input((300,))
    big = keras.Model(inputs, layers.Dense(300)(inputs))
    big.save(tmp_path / "big.keras")
    model = load_model(tmp_path / "big.keras")
    with largest_file(100_000), pytest.raises(OSError, match="File too large"):
        save_model(tmp_path / "out.keras", model)
    assert [path.name for path in tmp_path.iterdir()] == ["big.keras"]
