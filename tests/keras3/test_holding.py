"""Pruned weights of Keras 3 models stay zero in training, and the callback's promises.

The optimizers, loops and devices are in test_backends.py, on every backend.
"""

import keras
import numpy as np
import pytest

import tf_synflow

layers = keras.layers

X = np.random.default_rng(0).standard_normal((32, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 32)


def net():
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(16, "relu", name="a"),
            layers.Dense(16, "relu", name="b"),
            layers.Dense(3, name="c"),
        ]
    )


def compiled(model, **options):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, 0.9, **options), loss)
    return model


def nonzero(model):
    """How many weights of the kernels are not zero."""
    return sum(int(np.count_nonzero(layer.kernel.numpy())) for layer in model.layers)


def test_without_masks_the_zeros_do_not_last():
    """The control: what the other tests look at is not zero by itself."""
    plain = compiled(tf_synflow.strip(tf_synflow.prune(net(), 5, progress=False)))
    before = nonzero(plain)
    plain.fit(X, Y, verbose=0)
    assert nonzero(plain) > before


def test_averages_need_the_callback_and_are_zero_with_it():
    def trained(callbacks):
        model = compiled(tf_synflow.prune(net(), 5, progress=False), use_ema=True)
        kept = sum(mask.sum() for mask in tf_synflow.get_masks(model).values())
        model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
        return nonzero(model) - kept

    assert trained([]) > 0
    assert trained([tf_synflow.PruningCallback()]) <= 0


def test_a_plain_model_is_pruned_inside_fit_and_its_file_has_the_masks(tmp_path):
    model = compiled(net())
    model.fit(X, Y, verbose=0)  # a step that knows of no masks is traced
    kernel = model.layers[0].kernel
    callback = tf_synflow.PruningCallback(ratio=5, epoch=1)
    history = model.fit(X, Y, epochs=3, verbose=0, callbacks=[callback]).history
    size = 6 * 16 + 16 * 16 + 16 * 3
    assert history["density"] == [1.0, 80 / size, 80 / size]
    assert model.layers[0].kernel is kernel
    assert nonzero(model) <= 80 == sum(m.sum() for m in callback.masks.values())
    model.save(tmp_path / "model.keras")
    again = tf_synflow.load_model(tmp_path / "model.keras")
    for name, mask in callback.masks.items():
        np.testing.assert_array_equal(tf_synflow.get_masks(again)[name], mask)
    compiled(again).fit(X, Y, verbose=0)
    assert nonzero(again) <= 80


def test_two_callbacks_prune_in_steps():
    model = compiled(net())
    steps = [tf_synflow.PruningCallback(2), tf_synflow.PruningCallback(8, epoch=2)]
    history = model.fit(X, Y, epochs=4, verbose=0, callbacks=steps).history["density"]
    size = 6 * 16 + 16 * 16 + 16 * 3
    assert history == [200 / size] * 2 + [50 / size] * 2
    assert nonzero(model) <= 50


def test_early_stopping_that_restores_dense_weights_is_mended_with_a_warning():
    model = compiled(net())
    stop = keras.callbacks.EarlyStopping(
        monitor="density", mode="max", patience=5, restore_best_weights=True
    )
    callbacks = [tf_synflow.PruningCallback(5, epoch=2), stop]
    with pytest.warns(UserWarning, match="weights from before pruning were put back"):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
    assert nonzero(model) <= 80


def test_a_checkpoint_holds_zeros_and_masks(tmp_path):
    model = compiled(tf_synflow.prune(net(), 5, progress=False))
    path = str(tmp_path / "epoch_{epoch}.keras")
    save = keras.callbacks.ModelCheckpoint(path)
    callbacks = [save, tf_synflow.PruningCallback()]
    model.fit(X, Y, epochs=2, verbose=0, callbacks=callbacks)
    again = keras.models.load_model(tmp_path / "epoch_1.keras")
    masks = tf_synflow.get_masks(model)
    for name, mask in tf_synflow.get_masks(again).items():
        np.testing.assert_array_equal(mask, masks[name])
    assert nonzero(again) <= 80
    again.fit(X, Y, verbose=0)  # it is compiled, and goes on
    assert nonzero(again) <= 80


def test_the_callback_refuses_what_is_not_pruned():
    with pytest.raises(ValueError, match="is not pruned, so there is nothing to keep"):
        compiled(net()).fit(X, Y, callbacks=[tf_synflow.PruningCallback()])


def test_the_sparsity_callback_counts_zeros():
    optimizer = tf_synflow.optimizers.GRDA(0.1, c=0.05, mu=0.7, keras="keras")
    model = net()
    model.compile(
        optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    )
    callbacks = [tf_synflow.SparsityCallback()]
    history = model.fit(X, Y, epochs=5, verbose=0, callbacks=callbacks).history
    weights = model.trainable_variables
    zeros = sum(int(np.count_nonzero(weight.numpy() == 0)) for weight in weights)
    assert zeros > 0
    assert history["sparsity"][-1] == pytest.approx(zeros / model.count_params())


def test_densities_are_written_for_tensorboard(tmp_path):
    model = compiled(tf_synflow.prune(net(), 5, progress=False))
    callback = tf_synflow.PruningCallback(log_dir=tmp_path)
    model.fit(X, Y, verbose=0, callbacks=[callback])
    (file,) = tmp_path.iterdir()
    assert b"density/a/kernel" in file.read_bytes()
