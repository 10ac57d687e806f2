import os
import re
import subprocess
import sys
import tracemalloc
import zipfile

import numpy as np
import pytest
import tensorflow as tf
from nets import images, layers, masked_by_hand, randomise, residual_net

import tf_synflow
from tf_synflow.files.models import load_model, save_model
from tf_synflow.keras2.imports import TfmotWrapper, keras, tfmot

L1 = keras.regularizers.L1


@pytest.fixture
def masks():
    return tf_synflow.PruningPolicy(iterations=3).masks(randomise(residual_net()), 5)


def snapshot(model):
    return [w.copy() for w in model.get_weights()]


def test_masks_come_back_from_the_model_they_were_applied_to(masks):
    pruned = tf_synflow.apply_masks(residual_net(), masks)
    again = tf_synflow.get_masks(pruned)
    assert list(again) == list(masks)
    for name, mask in masks.items():
        assert again[name].dtype == bool
        np.testing.assert_array_equal(again[name], mask)


def test_weights_are_sparse_before_any_forward_pass(masks):
    model = residual_net()
    pruned = tf_synflow.apply_masks(model, masks)
    wrapped = [layer for layer in pruned.layers if isinstance(layer, TfmotWrapper)]
    assert [w.layer.name for w in wrapped] == ["conv1", "conv2", "conv3", "fc"]
    for wrapper in wrapped:
        mask = masks[f"{wrapper.layer.name}/kernel"]
        expected = np.where(mask, model.get_layer(wrapper.layer.name).kernel, 0)
        np.testing.assert_array_equal(wrapper.layer.kernel, expected)


def test_the_original_is_untouched_and_shares_nothing():
    model = randomise(residual_net())
    model.compile(keras.optimizers.Adam(), "sparse_categorical_crossentropy")
    x, y = images(model, 8)
    model.fit(x, y, verbose=0)
    before, optimizer = snapshot(model), [v.numpy() for v in model.optimizer.variables]
    pruned = tf_synflow.prune(model, 5, iterations=2)
    pruned.compile("sgd", "sparse_categorical_crossentropy")
    pruned.fit(x, y, verbose=0, callbacks=[tf_synflow.PruningCallback()])
    for old, new in zip(before, model.get_weights(), strict=True):
        assert old.tobytes() == new.tobytes()
    for old, new in zip(optimizer, model.optimizer.variables, strict=True):
        assert old.tobytes() == new.numpy().tobytes()
    assert not {id(w) for w in model.weights} & {id(w) for w in pruned.weights}


def test_biases_and_batch_norm_are_copied():
    model = randomise(residual_net())
    pruned = tf_synflow.prune(model, 5, iterations=2)
    for old, new in (
        (model.get_layer("bn"), pruned.get_layer("bn")),
        (model.get_layer("fc"), pruned.get_layer("prune_low_magnitude_fc").layer),
    ):
        for a, b in zip(old.weights, new.weights, strict=True):
            if "kernel" not in a.name:
                np.testing.assert_array_equal(a, b)


def test_the_schedule_records_the_sparsity_and_never_fires(masks):
    pruned = tf_synflow.apply_masks(residual_net(), masks)
    pruned.compile("sgd", "sparse_categorical_crossentropy")
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    pruned.fit(*images(pruned, 64), batch_size=4, verbose=0, callbacks=callbacks)
    for name, mask in tf_synflow.get_masks(pruned).items():
        np.testing.assert_array_equal(mask, masks[name])
        wrapper = pruned.get_layer("prune_low_magnitude_" + name.split("/")[0])
        sparsity = wrapper.pruning_schedule.target_sparsity
        np.testing.assert_allclose(sparsity, 1 - mask.mean(), atol=1e-12)


def test_an_emptied_layer_can_be_wrapped_saved_and_loaded(masks, tmp_path):
    masks["conv2/kernel"][:] = False
    pruned = tf_synflow.apply_masks(residual_net(), masks)
    pruned.save(tmp_path / "pruned.keras")
    with tfmot.sparsity.keras.prune_scope():
        again = keras.models.load_model(tmp_path / "pruned.keras")
    assert not tf_synflow.get_masks(again)["conv2/kernel"].any()


def test_layers_that_masks_do_not_name_stay_plain(masks):
    pruned = tf_synflow.apply_masks(residual_net(), {"fc/kernel": masks["fc/kernel"]})
    assert list(tf_synflow.get_masks(pruned)) == ["fc/kernel"]
    assert type(pruned.get_layer("conv1")) is layers.Conv2D


def test_masks_of_a_pruned_model_can_only_shrink(masks):
    pruned = tf_synflow.apply_masks(residual_net(), masks)
    less = {
        n: m & (np.arange(m.size).reshape(m.shape) % 2 == 0) for n, m in masks.items()
    }
    again = tf_synflow.get_masks(tf_synflow.apply_masks(pruned, less))
    for name in less:
        np.testing.assert_array_equal(again[name], less[name])
    with pytest.raises(ValueError, match="has pruned already; their values are gone"):
        tf_synflow.apply_masks(pruned, {n: np.ones_like(m) for n, m in masks.items()})


def test_strip_predicts_exactly_the_same_and_leaves_no_wrapper(masks):
    pruned = tf_synflow.apply_masks(randomise(residual_net()), masks)
    plain = tf_synflow.strip(pruned)
    x, _ = images(plain, 16)
    assert (
        plain.predict(x, verbose=0).tobytes() == pruned.predict(x, verbose=0).tobytes()
    )
    assert not any(isinstance(layer, TfmotWrapper) for layer in plain.layers)
    expected = [type(layer) for layer in residual_net().layers]
    assert [type(layer) for layer in plain.layers] == expected
    for name, mask in masks.items():
        kernel = plain.get_layer(name.split("/")[0]).kernel.numpy()
        assert np.count_nonzero(kernel) == np.count_nonzero(mask)
        assert not kernel[~mask].any()


def test_a_stripped_model_loads_with_keras_alone(masks, tmp_path):
    plain = tf_synflow.strip(tf_synflow.apply_masks(residual_net(), masks))
    names = ["model.keras", "model.h5", "model"]
    for name in names:
        plain.save(tmp_path / name)
    x, _ = images(plain, 3)
    np.save(tmp_path / "x.npy", x)
    program = (
        "import sys, numpy, tf_keras\n"
        f"for name in {names!r}:\n"
        "    model = tf_keras.models.load_model(name)\n"
        "    y = model.predict(numpy.load('x.npy'), verbose=0)\n"
        "    numpy.save(name + '.npy', y)\n"
        "assert 'tf_synflow' not in sys.modules\n"
        "assert 'tensorflow_model_optimization' not in sys.modules\n"
    )
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1"}
    command = [sys.executable, "-c", program]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment)
    expected = plain.predict(x, verbose=0)
    for name in names:
        assert np.load(tmp_path / f"{name}.npy").tobytes() == expected.tobytes()


def test_stripping_a_plain_model_copies_it():
    model = residual_net()
    plain = tf_synflow.strip(model)
    assert plain is not model
    for a, b in zip(model.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_nested_and_shared_layers_are_wrapped_once(tmp_path):
    inner = keras.Sequential(
        [layers.Dense(8, name="d", input_shape=(8,))], name="inner"
    )
    middle_in = keras.Input((8,))
    middle = keras.Model(middle_in, inner(middle_in), name="middle")
    shared = layers.Dense(8, name="shared")
    inputs = keras.Input((8,))
    x = shared(middle(shared(inputs)))
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    pruned = tf_synflow.prune(model, 4, iterations=3)
    masks = tf_synflow.get_masks(pruned)
    assert list(masks) == ["shared/kernel", "middle/inner/d/kernel", "out/kernel"]
    x, _ = images(model, 4)
    plain = tf_synflow.strip(pruned)
    np.testing.assert_array_equal(
        plain.predict(x, verbose=0), pruned.predict(x, verbose=0)
    )
    plain.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), pruned.predict(x, verbose=0)
    )


@pytest.mark.parametrize("half", ["mixed_float16", "mixed_bfloat16"])
def test_a_wrapper_computes_in_the_precision_of_its_layer(tmp_path, half):
    """Each layer has one of its own here, and the global policy is float32."""
    inputs = keras.Input((6,))
    x = layers.Dense(5, dtype=half, activation="relu", name="a")(inputs)
    outputs = layers.Dense(3, dtype="float32", name="b")(x)
    model = keras.Model(inputs, outputs)
    pruned = tf_synflow.prune(model, 2, iterations=3)
    x, y = images(model, 8)
    expected = tf_synflow.strip(pruned).predict(x, verbose=0)
    np.testing.assert_array_equal(pruned.predict(x, verbose=0), expected)
    pruned.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    pruned.fit(x, y, verbose=0, callbacks=[tf_synflow.PruningCallback()])
    pruned.save(tmp_path / "m.keras")
    for found in (pruned, tf_synflow.load_model(tmp_path / "m.keras")):
        wrappers = [layer for layer in found.layers if hasattr(layer, "pruning_vars")]
        assert [w.compute_dtype for w in wrappers] == [half[6:], "float32"]
        assert {v.dtype.name for v in found.trainable_variables} == {"float32"}
        assert found(x).dtype == "float32"


def test_mixed_precision_keeps_float32_masks_and_weights(masks):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = randomise(residual_net())
        again = tf_synflow.PruningPolicy(iterations=3).masks(model, 5)
        pruned = tf_synflow.prune(model, 5, iterations=3)
        pruned.compile("sgd", "sparse_categorical_crossentropy")
        callbacks = [tf_synflow.PruningCallback()]
        pruned.fit(*images(model, 16), verbose=0, callbacks=callbacks)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for name, mask in again.items():
        np.testing.assert_array_equal(mask, masks[name])
        wrapper = pruned.get_layer("prune_low_magnitude_" + name.split("/")[0])
        weight, variable, _ = wrapper.pruning_vars[0]
        assert variable.dtype == "float32"
        assert not weight.numpy()[~mask].any()


def test_an_adapted_normalization_is_copied_with_what_it_learned():
    data = np.random.default_rng(0).normal(5, 3, (100, 8)).astype("float32")
    normalization = layers.Normalization(name="norm")
    normalization.adapt(data)
    model = keras.Sequential([layers.Input((8,)), normalization, layers.Dense(4)])
    pruned = tf_synflow.prune(model, 1, criterion="magnitude")
    expected = model.predict(data, verbose=0)
    np.testing.assert_array_equal(pruned.predict(data, verbose=0), expected)
    plain = tf_synflow.strip(pruned).predict(data, verbose=0)
    np.testing.assert_array_equal(plain, expected)


def test_a_vocabulary_given_is_copied():
    lookup = layers.IntegerLookup(
        vocabulary=[3, 5], output_mode="one_hot", max_tokens=4
    )
    inputs = keras.Input((1,), dtype="int64")
    model = keras.Model(inputs, layers.Dense(2)(lookup(inputs)))
    pruned = tf_synflow.prune(model, 1, criterion="magnitude")
    x = np.array([[3], [5], [9]])
    expected = model.predict(x, verbose=0)
    np.testing.assert_array_equal(pruned.predict(x, verbose=0), expected)


def test_files_of_masks_round_trip_and_numpy_reads_them(masks, tmp_path):
    path = tmp_path / "masks.npz"
    tf_synflow.save_masks(path, masks)
    again = tf_synflow.load_masks(path)
    assert list(again) == list(masks)
    with np.load(path, allow_pickle=False) as stored:
        for name, mask in masks.items():
            np.testing.assert_array_equal(stored[name], mask)
            np.testing.assert_array_equal(again[name], mask)
    assert [p.name for p in tmp_path.iterdir()] == ["masks.npz"]


def test_a_save_that_fails_leaves_the_old_file_and_nothing_else(masks, tmp_path):
    path = tmp_path / "masks.npz"
    tf_synflow.save_masks(path, masks)
    before = path.read_bytes()
    for bad in (masks | {"x": np.ones(3)}, {}):
        with pytest.raises(ValueError, match="must be boolean|is empty"):
            tf_synflow.save_masks(path, bad)
    with pytest.raises(FileNotFoundError, match="create it first"):
        tf_synflow.save_masks(tmp_path / "none" / "masks.npz", masks)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["masks.npz"]


def foreign_files(masks, folder):
    whole = folder / "whole.npz"
    tf_synflow.save_masks(whole, masks)
    data = whole.read_bytes()
    (folder / "truncated.npz").write_bytes(data[: len(data) // 2])
    flipped = bytearray(data)
    flipped[data.index(b".npy") + 60] ^= 0xFF
    (folder / "flipped.npz").write_bytes(flipped)
    (folder / "text.npz").write_text("no masks")
    (folder / "empty.npz").write_bytes(b"")
    np.savez(folder / "floats.npz", **{"a/kernel": np.ones(3)})
    np.savez(folder / "nothing.npz")
    np.save(folder / "single.npy", np.ones(3, bool))
    objects = np.array([{}], object)
    np.savez(folder / "pickle.npz", allow_pickle=True, **{"a/kernel": objects})
    whole.unlink()
    residual_net().save(folder / "model.keras")
    return sorted(folder.iterdir())


def test_foreign_and_damaged_files_are_refused(masks, tmp_path):
    files = foreign_files(masks, tmp_path)
    assert len(files) == 9
    for file in files:
        with pytest.raises(ValueError, match="is no file of masks"):
            tf_synflow.load_masks(file)
    with pytest.raises(FileNotFoundError):
        tf_synflow.load_masks(tmp_path / "absent.npz")


def memory_taken(call):
    """The most bytes that Python and NumPy held during a call; it may fail."""
    tracemalloc.start()
    try:
        call()
    except ValueError as error:
        return tracemalloc.get_traced_memory()[1], str(error)
    finally:
        tracemalloc.stop()
    return tracemalloc.get_traced_memory()[1], None


def write_bomb(path, shape, content, method=zipfile.ZIP_DEFLATED):
    """An archive of one member: a header that declares a shape, then any bytes."""
    with zipfile.ZipFile(path, "w", method) as archive:
        with archive.open("fc/kernel.npy", "w") as member:
            header = {"descr": "|b1", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for block in content:
                member.write(block)


MB = 2**20


@pytest.mark.parametrize(
    ("shape", "blocks", "arguments", "message"),
    [
        ((40, MB), 40, {"limit": 30 * MB}, "41,943,040 bytes of memory, and the limit"),
        ((40, MB), 40, {"like": "model"}, r"shape \(40, 1048576\), but the model"),
        ((10**12,), 1, {}, "declares the shape"),
        ((16, 4), 40, {}, "declares the shape"),
        ((16, 4), 40, {"like": "model"}, "declares the shape"),
    ],
)
def test_a_small_file_of_masks_cannot_fill_the_memory(
    shape, blocks, arguments, message, tmp_path
):
    write_bomb(tmp_path / "bomb.npz", shape, [bytes(MB)] * blocks)
    assert (tmp_path / "bomb.npz").stat().st_size < MB / 10
    if "like" in arguments:
        arguments = {"like": residual_net()}
    taken, error = memory_taken(
        lambda: tf_synflow.load_masks(tmp_path / "bomb.npz", **arguments)
    )
    assert re.search(message, error)
    assert taken < 5 * MB


def redeclared(path, change):
    """Alters the size that an archive declares of its only member."""
    with zipfile.ZipFile(path) as archive:
        size = archive.infolist()[0].file_size
    old, new = (n.to_bytes(4, "little") for n in (size, size + change))
    path.write_bytes(path.read_bytes().replace(old, new))


def test_without_a_limit_of_ones_own_another_holds(tmp_path):
    """Header and directory declare 600 MB (of which the test spares itself 592)."""
    write_bomb(tmp_path / "bomb.npz", (600, MB), [bytes(MB)] * 8)
    redeclared(tmp_path / "bomb.npz", 592 * MB)
    taken, error = memory_taken(lambda: tf_synflow.load_masks(tmp_path / "bomb.npz"))
    assert "would take 629,145,600 bytes of memory, and the limit is" in error
    assert taken < 5 * MB


def test_a_directory_that_lies_about_sizes_is_found_out(tmp_path):
    """It declares 64 bytes of mask, as the header does, and 40 MB would come."""
    write_bomb(tmp_path / "bomb.npz", (16, 4), [bytes(MB)] * 40)
    redeclared(tmp_path / "bomb.npz", 64 - 40 * MB)
    taken, error = memory_taken(lambda: tf_synflow.load_masks(tmp_path / "bomb.npz"))
    assert "is no file of masks, or a damaged one" in error
    assert taken < 5 * MB


def test_masks_of_another_compression_are_refused(tmp_path):
    write_bomb(tmp_path / "bomb.npz", (MB,), [bytes(MB)], zipfile.ZIP_LZMA)
    with pytest.raises(ValueError, match="is compressed in an unknown way"):
        tf_synflow.load_masks(tmp_path / "bomb.npz")


def test_bytes_that_are_no_booleans_are_refused(tmp_path):
    write_bomb(tmp_path / "masks.npz", (3,), [b"\0\1\2"])
    with pytest.raises(ValueError, match="neither 0 nor 1"):
        tf_synflow.load_masks(tmp_path / "masks.npz")


def test_masks_are_checked_against_the_model_that_they_are_for(masks, tmp_path):
    path = tmp_path / "masks.npz"
    tf_synflow.save_masks(path, masks)
    again = tf_synflow.load_masks(path, like=residual_net(), limit=0)
    assert list(again) == list(masks)
    assert all((again[name] == masks[name]).all() for name in masks)
    with pytest.raises(ValueError, match=r"shape \(16, 4\), but the .* \(16, 5\)"):
        tf_synflow.load_masks(path, like=residual_net(5))
    other = keras.Sequential([layers.Input((3,)), layers.Dense(2, name="out")])
    with pytest.raises(ValueError, match=r"no such weight .*\['out/kernel'\]"):
        tf_synflow.load_masks(path, like=other)
    with pytest.raises(TypeError, match="like|model"):
        tf_synflow.load_masks(path, like="resnet")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m | {"conv9/kernel": m["fc/kernel"]}, r"\['conv9/kernel'\].*it has"),
        (
            lambda m: {"fc/bias": np.ones(4, bool)},
            r"\['fc/bias'\], but .*can be pruned",
        ),
        (lambda m: {"bn/gamma": np.ones(3, bool)}, r"\['bn/gamma'\], but"),
        (lambda m: {}, "masks is empty"),
        (lambda m: m | {"fc/kernel": m["fc/kernel"].T}, r"'fc/kernel' has shape"),
        (lambda m: m | {"fc/kernel": m["fc/kernel"] * 0.5}, "only True and False"),
        (
            lambda m: m | {"fc/kernel": m["fc/kernel"].astype(str)},
            "only True and False",
        ),
    ],
)
def test_masks_that_do_not_fit_are_refused_and_change_nothing(masks, change, message):
    model = residual_net()
    before = snapshot(model)
    with pytest.raises(ValueError, match=message):
        tf_synflow.apply_masks(model, change(masks))
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_masks_that_are_no_mapping_are_refused():
    with pytest.raises(TypeError, match="must be a mapping"):
        tf_synflow.apply_masks(residual_net(), [np.ones(3, bool)])
    with pytest.raises(TypeError, match="must be a mapping"):
        tf_synflow.save_masks("masks.npz", [np.ones(3, bool)])


def test_a_plain_model_has_no_masks_to_get():
    with pytest.raises(ValueError, match="has no masks"):
        tf_synflow.get_masks(residual_net())


@keras.saving.register_keras_serializable("tests_wrapping")
class Recurrent(layers.Layer):
    """h = x W + h / 2 over time; a masked step leaves h as it is; hands its mask on."""

    def __init__(self, units, **more):
        super().__init__(**more)
        self.units = units
        self.supports_masking = True

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (shape[-1], self.units))
        super().build(shape)

    def get_prunable_weights(self):
        return [self.kernel]

    def call(self, x, mask=None):
        h, steps = tf.zeros((tf.shape(x)[0], self.units)), []
        for step in range(x.shape[1]):
            new = x[:, step] @ self.kernel + h / 2
            h = new if mask is None else tf.where(mask[:, step, None], new, h)
            steps.append(h)
        return tf.stack(steps, 1)


def masked_net(first, wide):
    """Something that masks, then layers that take the mask, hand it on or drop it."""
    inputs = keras.Input((5,) if first == "embedding" else (5, 3))
    if first == "embedding":
        x = layers.Embedding(4, 3, mask_zero=True, name="embedding")(inputs)
    else:
        x = layers.Masking(name="masking")(inputs)
    if wide == "Conv1D":
        x = layers.Conv1D(4, 2, padding="same", name="wide")(x)
    else:
        x = (Recurrent if wide == "Recurrent" else layers.Dense)(4, name="wide")(x)
    x = layers.GlobalAveragePooling1D(name="mean")(x)  # of the steps not masked
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


@pytest.mark.parametrize("first", ["masking", "embedding"])
@pytest.mark.parametrize("wide", ["Dense", "Conv1D", "Recurrent"])
def test_keras_masks_pass_through_wrappers(first, wide, tmp_path):
    def build():
        return masked_net(first, wide)

    model = build()
    masks = tf_synflow.PruningPolicy(criterion="magnitude").masks(model, 2)
    expected = masked_by_hand(build, model, masks)
    pruned = tf_synflow.apply_masks(model, masks)
    generator = np.random.default_rng(0)
    x = generator.integers(0, 3, (6, 5)) if first == "embedding" else None
    if x is None:
        x = generator.standard_normal((6, 5, 3)) * generator.integers(0, 2, (6, 5, 1))
    x = x.astype("float32")
    found = [pruned, tf_synflow.strip(pruned), tf_synflow.shrink(pruned)]
    for ending in (".keras", ".h5"):
        save_model(tmp_path / f"pruned{ending}", pruned)
        found.append(tf_synflow.load_model(tmp_path / f"pruned{ending}"))
    for network in found:
        np.testing.assert_allclose(network(x), expected(x), atol=1e-6)
    np.testing.assert_allclose(tf.function(pruned)(x), expected(x), atol=1e-6)


def test_an_activity_regularizer_survives_everywhere(tmp_path):
    """An autoencoder with L1 activity; its loss is computed by NumPy."""
    inputs = keras.Input((4,))
    code = layers.Dense(3, "relu", activity_regularizer=L1(0.3), name="code")(inputs)
    model = keras.Model(inputs, layers.Dense(4, name="out")(code))
    pruned = tf_synflow.prune(model, 2, criterion="magnitude")
    masks = tf_synflow.get_masks(pruned)
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    kernels = [
        model.get_layer(n).kernel.numpy() * masks[f"{n}/kernel"]
        for n in ("code", "out")
    ]
    h = np.maximum(x @ kernels[0], 0)
    expected = np.mean((h @ kernels[1] - x) ** 2) + 0.3 * np.abs(h).sum() / len(x)
    found = [pruned, tf_synflow.strip(pruned), tf_synflow.shrink(pruned)]
    found.append(tf_synflow.apply_masks(pruned, masks))
    for ending in (".keras", ".h5", ""):
        save_model(tmp_path / f"pruned{ending}", pruned)
        found.append(tf_synflow.load_model(tmp_path / f"pruned{ending}"))
    for network in found:
        network.compile("sgd", "mse", run_eagerly=network is not pruned)
        loss = network.evaluate(x, x, verbose=0)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)


class Rich(layers.Layer):
    """Adds losses, metrics and updates, keeps a state, and drops out by default."""

    def __init__(self, units, **more):
        super().__init__(**more)
        self.units = units
        self.stateful = True

    def get_config(self):
        return {**super().get_config(), "units": self.units}

    def build(self, shape):
        self.kernel = self.add_weight(
            "kernel", (shape[-1], self.units), regularizer=L1(0.1)
        )
        self.seen = self.add_weight("seen", (), initializer="zeros", trainable=False)
        super().build(shape)

    def get_prunable_weights(self):
        return [self.kernel]

    def reset_states(self):
        self.seen.assign(0)

    def call(self, x, scale=None, training=True):
        y = x @ self.kernel * (1 if scale is None else scale)
        self.seen.assign_add(1)
        self.add_loss(tf.reduce_sum(tf.square(y)))
        self.add_metric(tf.reduce_max(y), name="largest")
        return 3 * y if training else y


def rich_net():
    inputs = keras.Input((4,))
    scale = layers.Dense(3, name="scale")(inputs)
    x = Rich(3, name="rich")(inputs, scale)
    return keras.Model(inputs, layers.Dense(2, name="out")(x))


def test_losses_metrics_state_and_defaults_of_a_wrapped_layer_survive():
    model = rich_net()
    masks = tf_synflow.PruningPolicy(criterion="magnitude").masks(model, 2)
    by_hand = masked_by_hand(rich_net, model, masks)
    pruned = tf_synflow.apply_masks(model, masks)
    x = np.random.default_rng(0).standard_normal((8, 4)).astype("float32")
    y = np.ones((8, 2), "float32")
    results = []
    for network in (by_hand, pruned):
        seen = next(w for w in network.weights if "seen" in w.name)
        plain = network(x)  # in the mode that is the layer's own default
        network.compile("sgd", "mse", run_eagerly=True)
        found = network.evaluate(x, y, verbose=0, return_dict=True)
        found |= network.train_on_batch(x, y, return_dict=True)
        assert seen.numpy() == 3
        network.reset_states()
        assert seen.numpy() == 0
        results.append([*sorted(found.items()), plain.numpy().tolist()])
    assert str(results[0]) == str(results[1])


def test_what_is_frozen_inside_the_model_stays_frozen():
    """Keras lists no weight of a frozen model, whatever its layers say."""
    inner_input = keras.Input((5, 4))
    x = layers.Dense(4, name="a")(inner_input)
    inner = keras.Model(inner_input, layers.Dense(4, name="b")(x), name="inner")
    inner.trainable = False
    inner.get_layer("b").trainable = True
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(1, 2, name="attention")
    x = attention(inner(inputs), inputs)
    attention._query_dense.trainable = False
    model = keras.Model(inputs, layers.Dense(1, name="out")(x))
    pruned = tf_synflow.prune(model, 2, criterion="magnitude")
    for network in (pruned, tf_synflow.strip(pruned), tf_synflow.shrink(pruned)):
        found = [weight.shape for weight in network.trainable_weights]
        assert found == [weight.shape for weight in model.trainable_weights]
        assert not network.get_layer("inner").trainable


def test_training_by_keyword_only_is_refused():
    class KeywordOnly(Rich):
        def call(self, x, *, training=None):
            return x @ self.kernel

    inputs = keras.Input((4,))
    model = keras.Model(inputs, KeywordOnly(3, name="own")(inputs))
    with pytest.raises(ValueError, match="'own' .KeywordOnly. takes `training` by key"):
        tf_synflow.prune(model, 2, criterion="magnitude")


LOOKUPS = [
    lambda: layers.StringLookup(output_mode="one_hot", num_oov_indices=2),
    lambda: layers.StringLookup(output_mode="multi_hot", max_tokens=9),
    lambda: layers.TextVectorization(output_mode="tf_idf"),
    lambda: layers.TextVectorization(
        output_mode="tf_idf", max_tokens=9, pad_to_max_tokens=True
    ),
    lambda: layers.TextVectorization(output_mode="count", ngrams=2),
    lambda: layers.IntegerLookup(output_mode="one_hot", mask_token=7),
    lambda: layers.Discretization(num_bins=3, output_mode="one_hot"),
]


@pytest.mark.parametrize("number", range(len(LOOKUPS)))
def test_an_adapted_vocabulary_is_copied(number, tmp_path):
    lookup = LOOKUPS[number]()
    words = not isinstance(lookup, (layers.IntegerLookup, layers.Discretization))
    x = np.array(["a b", "b c", "b"] if words else [3, 5, 5, 7, 9])[:, None]
    lookup.adapt(x)
    unknown = np.array([["d b"] if words else [6]])
    x = np.concatenate([x, unknown])
    inputs = keras.Input((1,), dtype="string" if words else "int64")
    model = keras.Model(inputs, layers.Dense(2, name="out")(lookup(inputs)))
    pruned = tf_synflow.prune(model, 2, criterion="magnitude")
    kernel = model.get_layer("out").kernel
    codes = lookup(x)
    kernel.assign(kernel * tf_synflow.get_masks(pruned)["out/kernel"])
    expected = codes.numpy() @ kernel.numpy()
    assert len(np.unique(expected, axis=0)) > 2
    found = [pruned, tf_synflow.strip(pruned), tf_synflow.shrink(pruned)]
    if not isinstance(lookup, layers.Discretization):  # Keras cannot load it
        save_model(tmp_path / "pruned.keras", pruned)
        found.append(load_model(tmp_path / "pruned.keras"))
    tables = {id(getattr(layer, "lookup_table", layer)) for layer in _parts(model)}
    for network in found:
        np.testing.assert_allclose(network(x), expected, atol=1e-6)
        own = {id(getattr(layer, "lookup_table", layer)) for layer in _parts(network)}
        assert not own & tables


def _parts(model):
    return list(model._flatten_layers())


class Tied(layers.Layer):
    """Multiplies by the transposed kernel of another layer."""

    def __init__(self, other, **more):
        super().__init__(**more)
        self.other = other

    def get_config(self):
        return {**super().get_config(), "other": self.other}

    def call(self, x):
        return tf.matmul(x, self.other.kernel, transpose_b=True)


class Hiding(Tied):
    """Tied, and Keras does not know."""

    def __init__(self, other, **more):
        super().__init__([], **more)
        self.get = lambda: other
        self.get_config = lambda: {"name": self.name, "other": other}

    def call(self, x):
        return tf.matmul(x, self.get().kernel, transpose_b=True)


class Holding(layers.Layer):
    """Gives away the layer that it holds."""

    def __init__(self, inner, **more):
        super().__init__(**more)
        self.inner = inner

    def get_config(self):
        return {**super().get_config(), "inner": self.inner}

    def call(self, x):
        return self.inner(x)


def tied_net(kind):
    encoder = layers.Dense(3, use_bias=False, name="encoder")
    inputs = keras.Input((4,))
    h = encoder(inputs)
    if kind == "layer":
        x = Tied(encoder, name="decoder")(h)
    elif kind == "hidden":
        x = Hiding(encoder, name="decoder")(h)
    elif kind == "lambda":
        x = layers.Lambda(
            lambda h: tf.matmul(h, encoder.kernel, transpose_b=True), name="decoder"
        )(h)
    elif kind == "operator":
        x = tf.matmul(h, encoder.kernel, transpose_b=True)
    elif kind == "held":
        x = Holding(layers.Dense(4), name="decoder")(h)
    else:
        x = layers.TimeDistributed(encoder, name="decoder")(
            layers.Reshape((1, 4))(layers.Dense(4)(h))
        )
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("layer", "'encoder' and 'decoder' share the weight 'encoder/kernel'"),
        ("wrapped", "'encoder' and 'decoder' share the weight 'encoder/kernel'"),
        ("hidden", "layer 'decoder' .Hiding. computes with the variable 'encoder/k"),
        ("lambda", "layer 'decoder' .Lambda. computes with the variable 'encoder/k"),
        ("operator", "'tf.linalg.matmul' is given the variable 'encoder/kernel"),
        ("held", "copy of layer 'decoder' .Holding. would share the variable"),
    ],
)
def test_a_copy_that_would_share_a_variable_is_refused_by_name(kind, message):
    model = tied_net(kind)
    before = snapshot(model)
    masks = {"encoder/kernel": np.ones((4, 3), bool)}
    for use in (
        lambda: tf_synflow.prune(model, 2, criterion="magnitude"),
        lambda: tf_synflow.apply_masks(model, masks),
        lambda: tf_synflow.strip(model),
        lambda: tf_synflow.shrink(model),
    ):
        with pytest.raises(ValueError, match=message):
            use()
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_sequential_model_with_a_loss_on_a_tensor_is_refused():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2), layers.Dense(2)])
    model.add_loss(tf.reduce_mean(model.layers[0].output))
    with pytest.raises(ValueError, match="is Sequential and has an add_loss"):
        tf_synflow.strip(model)
