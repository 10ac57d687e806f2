"""SavedModel and TFLite files: that they compute what Keras does, and their sizes."""

import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from nets import randomise, residual_net
from programs import largest_file, run

import tf_synflow
from tf_synflow.files import exporting, tflite
from tf_synflow.keras2.imports import keras, tfmot

layers = keras.layers


def lenet():
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPool2D(),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )


def two_in_two_out():
    # Names that are no names of a signature, and in no alphabetical order.
    b = keras.Input((4,), name="b/in")
    a = keras.Input((3,), name="a")
    x = layers.Concatenate()([layers.Dense(5)(b), a])
    first = layers.Dense(2, name="z")(x)
    return keras.Model([b, a], [first, layers.Dense(3, name="y")(x)])


NETS = [lenet, residual_net, two_in_two_out]


# What a process without Keras and without tf_synflow computes with the files.
PROGRAM = """
import sys, numpy as np, tensorflow as tf
for path, inputs, outputs in zip(*[iter(sys.argv[1:])] * 3):
    inputs = dict(np.load(inputs))
    if path.endswith('.tflite'):
        interpreter = tf.lite.Interpreter(path)
        run = interpreter.get_signature_runner('serving_default')
    else:
        run = tf.saved_model.load(path).signatures['serving_default']
        inputs = {name: tf.constant(x) for name, x in inputs.items()}
    np.savez(outputs, **{k: np.array(y) for k, y in run(**inputs).items()})
"""


def test_what_is_written_computes_what_keras_does(tmp_path):
    generator = np.random.default_rng(7)
    arguments, checks = [], []
    for net in NETS:
        model = tf_synflow.prune(randomise(net()), 3, iterations=5)
        shapes = [tensor.shape[1:] for tensor in model.inputs]
        data = [generator.standard_normal((3, *s)).astype("float32") for s in shapes]
        names = ["b_in", "a"] if len(data) > 1 else model.input_names
        np.savez(
            tmp_path / f"{net.__name__}.npz", **dict(zip(names, data, strict=True))
        )
        expected = tf.nest.flatten(model(data, training=False))
        for ending in ("", ".tflite"):
            folder = tmp_path / f"{net.__name__}{ending or '.saved'}"
            folder.mkdir()
            found = tf_synflow.export(model, folder / f"model{ending}")
            assert [path.name for path in folder.iterdir()] == [f"model{ending}"]
            files = found.path, tmp_path / f"{net.__name__}.npz", folder / "out.npz"
            arguments += map(str, files)
            checks.append((folder / "out.npz", expected))
    subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True)
    assert len(checks) == 6
    for path, expected in checks:
        outputs = np.load(path)
        assert len(outputs.files) == len(expected)
        for i, want in enumerate(expected):
            scale = np.abs(want).max()
            np.testing.assert_allclose(outputs[f"output_{i}"], want, atol=1e-5 * scale)


def zipped(path, folder):
    """An independent count: what zip makes of the files, without its headers."""
    with zipfile.ZipFile(folder / "z.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in [path] if path.is_file() else path.rglob("*"):
            archive.write(file)
        return sum(info.compress_size for info in archive.infolist())


@pytest.mark.parametrize("ending", ["", ".tflite"])
def test_sizes_are_those_on_disk(ending, tmp_path):
    model = randomise(lenet())
    dense = tf_synflow.export(model, tmp_path / f"dense{ending}")
    pruned = tf_synflow.prune(model, 20)
    found = tf_synflow.export(pruned, tmp_path / f"pruned{ending}")
    files = [found.path] if ending else list(found.path.rglob("*"))
    assert found.bytes == sum(p.stat().st_size for p in files if p.is_file())
    assert found.compressed_bytes == pytest.approx(zipped(found.path, tmp_path), abs=99)
    assert dense.nonzero == dense.parameters == found.parameters == model.count_params()
    biases = 6 + 16 + 120 + 10
    kept = tf_synflow.report(pruned).totals["prunable"]["kept"]
    assert found.nonzero == kept + biases
    assert found.compressed_bytes < dense.compressed_bytes / 5
    if ending:
        assert found.sparse and not dense.sparse
        assert found.dense_bytes == pytest.approx(dense.bytes, rel=0.01)
        assert found.bytes < dense.bytes / 5  # a weight kept has an index too
    else:
        assert not found.sparse and found.dense_bytes == found.bytes
    assert f"{found.bytes:,} bytes" in str(found)


def test_barely_pruned_weights_stay_dense_where_that_is_smaller(tmp_path):
    model = tf_synflow.prune(randomise(lenet()), 0.35, iterations=1)
    found = tf_synflow.export(model, tmp_path / "model.tflite")
    assert found.bytes <= found.dense_bytes


@pytest.mark.parametrize("ending", ["", ".tflite"])
def test_a_wrong_file_is_never_given_its_name(ending, tmp_path, monkeypatch):
    """The writer is sabotaged: one bias differs by 0.01 in what it writes."""
    model = lenet()
    write = exporting._write_saved_model

    def sabotaged(served, path):
        bias = served.variables[-1]
        right = bias.numpy()
        bias.assign(right + 0.01 * np.eye(10)[3])
        write(served, path)
        bias.assign(right)

    monkeypatch.setattr(exporting, "_write_saved_model", sabotaged)
    with pytest.raises(ValueError, match="does not compute what Keras does"):
        tf_synflow.export(model, tmp_path / f"model{ending}")
    assert not list(tmp_path.iterdir())


def offset_net():
    """One output that varies by 0.03 or so around 1000, and one by 1000."""
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2, name="fc")])
    kernel = np.array([[0.01, 300], [-0.02, 500], [0.015, -400]], "float32")
    model.get_layer("fc").set_weights([kernel, np.array([1000, 0], "float32")])
    return model


def export_sabotaged(model, path, monkeypatch, weight, value):
    """Exports with one weight of the last layer other in the file than in Keras."""
    write = exporting._write_saved_model

    def sabotaged(served, aside):
        variable = served.variables[-2:][weight]
        right = variable.numpy()
        variable.assign(value)
        write(served, aside)
        variable.assign(right)

    monkeypatch.setattr(exporting, "_write_saved_model", sabotaged)
    return tf_synflow.export(model, path)


@pytest.mark.parametrize("ending", ["", ".tflite"])
def test_a_file_that_computes_a_constant_is_refused(ending, tmp_path, monkeypatch):
    """What is wrong is less than 1e-4 of the largest output of its own unit."""
    constant = offset_net().get_layer("fc").kernel.numpy()
    constant[:, 0] = 0
    with pytest.raises(ValueError, match="output 0 differs by 0.* where it varies"):
        export_sabotaged(
            offset_net(), tmp_path / f"m{ending}", monkeypatch, 0, constant
        )
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    # As it is, it is only as right as float32 can be beside 1000.
    found = tf_synflow.export(offset_net(), tmp_path / f"m{ending}")
    assert found.difference <= 2 * np.spacing(np.float32(1000))


def test_rounding_is_told_from_error(tmp_path):
    """Sums of 1e4 that cancel: rounding is 1e-3 of what is left, and no fault."""
    generator = np.random.default_rng(0)
    inputs = keras.Input((16,))
    x = layers.Dense(64, name="big")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="out")(x))
    up = generator.standard_normal((16, 64)).astype("float32")
    down = generator.standard_normal((64, 4)).astype("float32")
    model.get_layer("big").set_weights([0.01 * up, np.full(64, 1e4, "float32")])
    model.get_layer("out").set_weights([down, -1e4 * down.sum(0)])
    found = tf_synflow.export(model, tmp_path / "m.tflite")
    assert found.difference < 0.1


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_not_finite_has_to_agree(value, tmp_path, monkeypatch):
    model = offset_net()
    bias = np.array([1000, 0], "float32")
    broken = np.array([value, 0], "float32")
    pairs = [(broken, bias), (bias, broken), (broken, -broken)]
    for keras_has, file_has in pairs[: 2 if np.isnan(value) else 3]:
        model.get_layer("fc").bias.assign(keras_has)
        with pytest.raises(ValueError, match="output 0 is NaN or infinite for the one"):
            export_sabotaged(model, tmp_path / "m", monkeypatch, 1, file_has)
        monkeypatch.undo()
    model.get_layer("fc").bias.assign(broken)
    assert tf_synflow.export(model, tmp_path / "agreed").difference == 0
    model.get_layer("fc").bias.assign([value, value])
    with pytest.raises(ValueError, match="Keras gives only NaN and infinities"):
        tf_synflow.export(model, tmp_path / "m")
    assert [path.name for path in tmp_path.iterdir()] == ["agreed"]


def few_inputs(count, generator):
    """A sparse Dense of few inputs before a large one, and what it computes."""
    inputs = keras.Input((count,), name="input")
    x = layers.Dense(40, name="small")(inputs)
    model = keras.Model(inputs, layers.Dense(64, name="large")(x))
    weights = [generator.standard_normal(w.shape) for w in model.get_weights()]
    for i in (0, 2):
        weights[i] = weights[i] * (generator.random(weights[i].shape) < 0.15)
    weights = [w.astype("float32") for w in weights]
    model.set_weights(weights)
    x = generator.standard_normal((5, count)).astype("float32")
    a, b, c, d = (w.astype("float64") for w in weights)
    return model, x, (x @ a + b) @ c + d


def computed(path, x):
    interpreter = tf.lite.Interpreter(str(path))
    [output] = interpreter.get_signature_runner("serving_default")(input=x).values()
    return output


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_sparse_kernels_of_few_inputs_are_right_and_the_others_stay_sparse(tmp_path):
    generator = np.random.default_rng(0)
    for count in (1, 3, 7):
        model, x, expected = few_inputs(count, generator)
        found = tf_synflow.export(model, tmp_path / f"{count}.tflite")
        assert found.sparse and not found.note
        assert found.bytes < found.dense_bytes / 2
        scale = np.abs(expected).max()
        np.testing.assert_allclose(computed(found.path, x), expected, atol=1e-5 * scale)


@pytest.mark.filterwarnings("ignore:.*tf.lite.Interpreter is deprecated")
def test_a_wrong_sparse_file_gives_way_to_the_dense_one(tmp_path, monkeypatch):
    """The repair of TFLite's fault is taken out, so that the fault is there."""
    monkeypatch.setattr(tflite, "_with_whole_blocks", lambda sparse, dense: sparse)
    model, x, expected = few_inputs(3, np.random.default_rng(0))
    found = tf_synflow.export(model, tmp_path / "m.tflite")
    assert not found.sparse and found.bytes == found.dense_bytes
    assert "stored dense" in found.note and found.note in str(found)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(computed(found.path, x), expected, atol=1e-5 * scale)


@pytest.mark.filterwarnings("ignore:Statistics for quantized inputs were expected")
def test_a_quantised_model_is_refused_with_a_way_out_that_works(tmp_path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    plain = tf_synflow.strip(tf_synflow.prune(model, 2, criterion="magnitude"))
    quantised = tfmot.quantization.keras.quantize_model(plain)
    for ending in ("", ".tflite"):
        with pytest.raises(ValueError, match="quantised by tfmot.*before quan"):
            tf_synflow.export(quantised, tmp_path / f"m{ending}")
    assert not list(tmp_path.iterdir())
    converter = tf.lite.TFLiteConverter.from_keras_model(quantised)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    assert converter.convert()[4:8] == b"TFL3"


@pytest.mark.parametrize(
    "function",
    [
        lambda x: tf.math.igamma(tf.abs(x), 1.0),  # not converted
        lambda x: tf.math.lgamma(x),  # converted to what does not run
    ],
)
def test_what_tflite_cannot_express_is_said_with_the_way_out(function, tmp_path):
    inputs = keras.Input((4, 2))
    unknown_to_tflite = layers.Lambda(function)
    model = keras.Model(inputs, unknown_to_tflite(layers.Dense(2)(inputs)))
    with pytest.raises(ValueError, match="without an ending writes a SavedModel"):
        tf_synflow.export(model, tmp_path / "model.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("path", "data", "message"),
    [
        ("model.keras", None, "ends in .tflite or .onnx, or has no"),
        ("model", np.zeros((2, 4, 4, 3)), "data must be one array for each input"),
        ("model", [np.zeros((2, 4, 4, 2))] * 2, "data must be one array for each"),
        ("model", np.zeros((0, 4, 4, 2)), "data must be one array for each input"),
        ("model", {"input": np.zeros((2, 4, 4, 2))}, "an array or a list, got dict"),
    ],
)
def test_bad_input_is_refused(path, data, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        tf_synflow.export(residual_net(), tmp_path / path, data)
    assert not list(tmp_path.iterdir())


def test_inputs_that_nobody_can_make_up_are_asked_for(tmp_path):
    inputs = keras.Input((4,), dtype="int32")
    x = layers.Embedding(5, 3)(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Flatten()(x)))
    with pytest.raises(ValueError, match="give real inputs"):
        tf_synflow.export(model, tmp_path / "model")
    data = np.random.default_rng(0).integers(0, 5, (6, 4))
    assert tf_synflow.export(model, tmp_path / "model", data).difference == 0


def test_a_fixed_batch_size_and_a_boolean_output_are_no_hindrance(tmp_path):
    inputs = keras.Input((4,), batch_size=3)
    x = layers.Dense(2)(inputs)
    model = keras.Model(inputs, [x, layers.Lambda(lambda x: x > 0)(x)])
    for ending in ("", ".tflite"):
        assert tf_synflow.export(model, tmp_path / f"m{ending}").difference < 1e-6


def test_a_model_of_another_precision_is_refused_for_tflite_alone(tmp_path):
    inputs = keras.Input((4,), dtype="float64")
    model = keras.Model(inputs, layers.Dense(2, dtype="float64")(inputs))
    with pytest.raises(ValueError, match=r"computes in \['float64'\]"):
        tf_synflow.export(model, tmp_path / "model.tflite")
    assert tf_synflow.export(model, tmp_path / "model").difference == 0


def test_what_cannot_be_exported_is_said_in_plain_words(tmp_path, two_devices):
    inputs = keras.Input((1,), dtype="int64")
    x = layers.IntegerLookup(vocabulary=[3, 5])(inputs)
    x = layers.Flatten()(layers.Embedding(3, 2)(x))
    table = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="holds a table or another resource"):
        tf_synflow.export(table, tmp_path / "model", np.array([[3], [5]]))
    with two_devices.scope(), pytest.raises(ValueError, match="outside of the strat"):
        tf_synflow.export(residual_net(), tmp_path / "model")
    names = [keras.Input((2,), name=name) for name in ("x y", "x_y")]
    model = keras.Model(names, layers.Add()(names))
    with pytest.raises(ValueError, match="are not distinct in a"):
        tf_synflow.export(model, tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", ["", ".tflite"])
def test_a_disk_that_fills_up_leaves_nothing_behind(ending, tmp_path):
    """Files may have 20 kB: writing them fails midway."""
    model = keras.Sequential([keras.Input((100,)), layers.Dense(100)])
    with largest_file(20_000), pytest.raises(OSError):
        tf_synflow.export(model, tmp_path / f"model{ending}")
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_left_alone(tmp_path):
    (tmp_path / "model.tflite").write_text("precious")
    with pytest.raises(FileExistsError, match="left alone"):
        tf_synflow.export(residual_net(), tmp_path / "model.tflite")
    assert (tmp_path / "model.tflite").read_text() == "precious"


def test_the_script_exports_and_explains(tmp_path):
    tf_synflow.prune(randomise(residual_net()), 4).save(tmp_path / "small.keras")
    flags = [f"--model={tmp_path}/small.keras", f"--output={tmp_path}/small.tflite"]
    np.save(tmp_path / "x.npy", np.random.default_rng(0).random((5, 4, 4, 2)))
    done = run("export", *flags, f"--data={tmp_path}/x.npy")
    assert done.returncode == 0, done.stderr
    assert "outputs differ from those of Keras by" in done.stdout
