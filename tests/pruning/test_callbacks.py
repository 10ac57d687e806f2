from itertools import permutations

import numpy as np
import pytest
import tensorflow as tf
from nets import images, layers, randomise, residual_net

import tf_synflow
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras, tfmot

RATIO = 5
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pruned_net():
    return tf_synflow.prune(randomise(residual_net()), RATIO, iterations=3)


def policy():
    return tf_synflow.PruningPolicy(iterations=3)


def alive(model, masks):
    """How many pruned weights are not zero, and how many kept ones are."""
    variables = read(model).weights
    pruned = kept = 0
    for name, mask in masks.items():
        for component in getattr(variables[name], "values", [variables[name]]):
            value = component.numpy()
            pruned += np.count_nonzero(value[~mask])
            kept += np.count_nonzero(value[mask])
    return pruned, kept


class Watch(keras.callbacks.Callback):
    """Counts pruned weights that are not zero, whenever a callback can look."""

    def __init__(self, masks):
        super().__init__()
        self.masks, self.seen, self.moments = masks, 0, 0

    def look(self, *args, **kwargs):
        self.moments += 1
        self.seen += alive(self.model, self.masks)[0]

    on_epoch_begin = on_epoch_end = on_train_begin = on_train_end = look
    on_train_batch_begin = on_train_batch_end = on_test_begin = on_test_end = look


OPTIMIZERS = {
    "sgd": lambda: keras.optimizers.SGD(0.01, momentum=0.9, weight_decay=0.1),
    "adam with ema": lambda: keras.optimizers.Adam(0.01, use_ema=True),
    "ema overwriting": lambda: keras.optimizers.SGD(
        0.01, use_ema=True, ema_overwrite_frequency=3
    ),
    "legacy": lambda: keras.optimizers.legacy.SGD(0.01, momentum=0.9),
}


@pytest.mark.parametrize(
    "options", [{}, {"steps_per_execution": 3}, {"run_eagerly": True}]
)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_zeros_hold_whenever_a_callback_looks(optimizer, options):
    model = pruned_net()
    masks = tf_synflow.get_masks(model)
    model.compile(OPTIMIZERS[optimizer](), LOSS, **options)
    x, y = images(model, 24)
    before, after = Watch(masks), Watch(masks)
    callbacks = [before, tf_synflow.PruningCallback(), after]
    model.fit(x, y, 8, 2, 0, callbacks, validation_data=(x, y))
    assert before.seen == after.seen == 0
    assert before.moments == after.moments > 10
    pruned, kept = alive(model, masks)
    assert pruned == 0
    assert kept == sum(mask.sum() for mask in masks.values())


def test_zeros_hold_with_jit_compile():
    model = pruned_net()
    masks = tf_synflow.get_masks(model)
    model.compile(OPTIMIZERS["sgd"](), LOSS, jit_compile=True)
    watch = Watch(masks)
    callbacks = [watch, tf_synflow.PruningCallback()]
    model.fit(*images(model, 32), 8, 2, 0, callbacks)
    assert watch.seen == 0


def test_zeros_hold_after_train_on_batch_and_in_a_fit_without_any_callback():
    model = pruned_net()
    masks = tf_synflow.get_masks(model)
    model.compile(OPTIMIZERS["sgd"](), LOSS)
    x, y = images(model, 8)
    for _ in range(3):
        model.train_on_batch(x, y)
        assert alive(model, masks)[0] == 0
    model.fit(x, y, verbose=0)
    assert alive(model, masks)[0] == 0


def test_checkpoints_are_sparse_wherever_they_stand(tmp_path):
    """Before our callback and after it, of every epoch and within one, of any kind."""
    model = pruned_net()
    masks = tf_synflow.get_masks(model)
    model.compile(OPTIMIZERS["sgd"](), LOSS)
    first, last = (
        [
            keras.callbacks.ModelCheckpoint(
                str(tmp_path / f"{place}_{save_freq}{ending}"), save_freq=save_freq
            )
            for save_freq in ("epoch", 2)
            for ending in (".keras", ".h5", "")
        ]
        for place in ("first", "last")
    )
    x, y = images(model, 24)  # three steps: one checkpoint after the second
    model.fit(x, y, 8, 1, 0, [*first, tf_synflow.PruningCallback(), *last])
    for checkpoint in (*first, *last):
        with tfmot.sparsity.keras.prune_scope():
            loaded = keras.models.load_model(checkpoint.filepath)
        again = tf_synflow.get_masks(loaded)
        assert list(again) == list(masks)
        for name, mask in masks.items():
            np.testing.assert_array_equal(again[name], mask)
        assert alive(loaded, masks)[0] == 0, checkpoint.filepath


def test_a_loaded_model_stays_sparse_while_it_is_trained_further(tmp_path):
    model = pruned_net()
    model.compile(OPTIMIZERS["adam with ema"](), LOSS)
    x, y = images(model, 40)
    model.fit(x, y, 8, 1, 0, [tf_synflow.PruningCallback()])
    model.save(tmp_path / "model.keras")
    with tfmot.sparsity.keras.prune_scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    masks = tf_synflow.get_masks(loaded)
    # One step without the callback: the step traced then knows of no constraint.
    loaded.train_on_batch(x, y)
    watch = Watch(masks)
    loaded.fit(x, y, 8, 2, 0, [tf_synflow.PruningCallback(), watch])
    assert watch.seen == 0
    assert alive(loaded, masks)[0] == 0


def test_a_model_wrapped_by_tfmot_needs_no_other_callback():
    model = tfmot.sparsity.keras.prune_low_magnitude(
        randomise(residual_net()), pruning_policy=policy()
    )
    model.compile(OPTIMIZERS["sgd"](), LOSS)
    model.fit(*images(model, 16), verbose=0, callbacks=[tf_synflow.PruningCallback()])
    assert all(mask.any() for mask in tf_synflow.get_masks(model).values())


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("epoch", [0, 1])
def test_a_plain_compiled_model_is_pruned_inside_fit(optimizer, epoch):
    model = randomise(residual_net())
    model.compile(OPTIMIZERS[optimizer](), LOSS)
    x, y = images(model, 40)
    callback = tf_synflow.PruningCallback(RATIO, policy(), epoch=epoch)
    history = model.fit(x, y, 8, 3, 0, [callback]).history
    masks = callback.masks
    size = sum(mask.size for mask in masks.values())
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert kept == size - int((1 - 1 / RATIO) * size)
    assert alive(model, masks) == (0, kept)
    assert history["density"] == [1.0] * epoch + [kept / size] * (3 - epoch)


def test_pruning_at_the_first_epoch_is_pruning_before_training():
    model = randomise(residual_net())
    expected = policy().masks(model, RATIO)
    model.compile(OPTIMIZERS["sgd"](), LOSS)
    callback = tf_synflow.PruningCallback(RATIO, policy())
    model.fit(*images(model, 8), verbose=0, callbacks=[callback])
    for name, mask in expected.items():
        np.testing.assert_array_equal(callback.masks[name], mask)


def test_one_instance_serves_two_models():
    callback = tf_synflow.PruningCallback(RATIO, policy())
    for _ in range(2):
        model = residual_net()
        model.compile(OPTIMIZERS["sgd"](), LOSS)
        model.fit(*images(model, 8), verbose=0, callbacks=[callback])
        assert alive(model, callback.masks)[0] == 0


@pytest.mark.parametrize("same_instance", [True, False])
def test_a_plain_model_remembers_its_masks_in_the_next_fit(same_instance):
    model = randomise(residual_net())
    model.compile(keras.optimizers.Adam(0.01), LOSS)
    x, y = images(model, 40)
    once = tf_synflow.PruningPolicy(iterations=1)
    first = tf_synflow.PruningCallback(RATIO, once)
    model.fit(x, y, 8, 1, 0, [first])
    masks = first.masks
    for name, mask in tf_synflow.get_masks(model).items():
        np.testing.assert_array_equal(mask, masks[name])
    second = first if same_instance else tf_synflow.PruningCallback(RATIO, once)
    model.fit(x, y, 8, 2, 0, [second], initial_epoch=1)
    for name, mask in masks.items():
        np.testing.assert_array_equal(second.masks[name], mask)
    model.fit(x, y, 8, 1, 0, [tf_synflow.PruningCallback()])
    assert alive(model, masks)[0] == 0
    with pytest.raises(ValueError, match="is pruned to .* already"):
        model.fit(x, y, verbose=0, callbacks=[tf_synflow.PruningCallback(2, once)])
    with pytest.raises(ValueError, match="is pruned to .* already"):
        tf_synflow.prune(model, 2)
    assert alive(tf_synflow.prune(model, RATIO, policy=once), masks)[0] == 0


def test_excluded_weights_of_a_pruned_model_are_pruned_in_place_and_in_order():
    model = tf_synflow.prune(randomise(residual_net()), 2, exclude=["conv2"])
    model.compile(OPTIMIZERS["sgd"](), LOSS)
    callback = tf_synflow.PruningCallback(4, policy())
    model.fit(*images(model, 8), verbose=0, callbacks=[callback])
    masks = tf_synflow.get_masks(model)
    names = ["conv1/kernel", "conv2/kernel", "conv3/kernel", "fc/kernel"]
    assert list(masks) == list(callback.masks) == names
    assert alive(model, masks)[0] == 0


class Early(keras.callbacks.Callback):
    """Says that the first epoch was the best one, and remembers its kernels."""

    def on_epoch_end(self, epoch, logs=None):
        logs["rank"] = float(epoch)
        if epoch == 0:
            self.weights = self.model.get_weights()
            self.kernels = {n: v.numpy() for n, v in kernels(self.model).items()}


def dense_net():
    inputs = keras.Input((5,))
    x = layers.Dense(6, "relu", name="a")(inputs)
    return randomise(keras.Model(inputs, layers.Dense(4, name="b")(x), name="net"))


def kernels(model):
    return {n: v for n, v in read(model).weights.items() if "kernel" in n}


def largest(values, kept):
    """Masks of the `kept` largest weights; no two are equal here but those at 0."""
    sizes = np.abs(np.concatenate([value.ravel() for value in values.values()]))
    threshold = np.sort(sizes)[-kept]
    return {name: np.abs(value) >= threshold for name, value in values.items()}


BIGGEST = tf_synflow.PruningPolicy("magnitude")
BEFORE = "the best epoch lies before pruning"


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("order", [*permutations(["prune", "stop", "save"])])
def test_a_best_epoch_before_pruning_is_pruned_too(tmp_path, wrapped, order):
    """54 weights: 27 kept by the wrappers, then 9 from the second epoch on."""
    model = dense_net()
    if wrapped:
        model = tf_synflow.prune(model, 2, policy=BIGGEST)
    model.compile(keras.optimizers.SGD(0.1), LOSS)
    early = Early()
    best = {"monitor": "rank", "mode": "min"}
    callbacks = {
        "prune": tf_synflow.PruningCallback(6, BIGGEST, epoch=1),
        "stop": keras.callbacks.EarlyStopping(
            **best, patience=2, restore_best_weights=True
        ),
        "save": keras.callbacks.ModelCheckpoint(
            str(tmp_path / "best.h5"),
            **best,
            save_best_only=True,
            save_weights_only=True,
        ),
    }
    x, y = images(model, 16)
    with pytest.warns(UserWarning, match=BEFORE) as said:
        history = model.fit(
            x, y, 8, 6, 0, [early, *[callbacks[name] for name in order]]
        ).history
    assert len(said) == 1
    came_back = 27 - 9 if wrapped else 54 - 9
    assert f"{came_back} of 54 weights" in str(said[0].message)
    masks = largest(early.kernels, 9)
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(
            kernel.numpy(), np.where(masks[name], early.kernels[name], 0)
        )
        np.testing.assert_array_equal(callbacks["prune"].masks[name], masks[name])
        np.testing.assert_array_equal(tf_synflow.get_masks(model)[name], masks[name])
    assert tf_synflow.report(model).totals["prunable"]["kept"] == 9
    assert history["density"] == [0.5 if wrapped else 1.0, 9 / 54, 9 / 54]
    assert "on_train_end" not in vars(model.history)

    model.load_weights(tmp_path / "best.h5")
    kept = 27 if wrapped else 54
    for name, kernel in kernels(model).items():
        np.testing.assert_array_equal(kernel.numpy(), early.kernels[name])
        mask = tf_synflow.get_masks(model)[name]
        np.testing.assert_array_equal(mask, early.kernels[name] != 0)
    found = tf_synflow.report(model)
    assert found.totals["prunable"]["kept"] == kept
    assert ("45 weights were pruned inside fit" in str(found)) is not wrapped
    plain = tf_synflow.strip(model)
    np.testing.assert_allclose(plain(x), model(x), rtol=1e-6)


def test_weights_of_before_that_are_loaded_are_pruned_in_the_next_fit():
    model = dense_net()
    model.compile("sgd", LOSS)
    x, y = images(model, 8)
    before = model.get_weights()
    model.fit(x, y, verbose=0, callbacks=[tf_synflow.PruningCallback(6, BIGGEST)])
    masks = tf_synflow.get_masks(model)
    model.set_weights(before)
    with pytest.warns(UserWarning, match="45 of 54 weights were pruned"):
        model.fit(x, y, verbose=0, callbacks=[tf_synflow.PruningCallback()])
    assert alive(model, masks) == (0, 9)
    for name, mask in tf_synflow.get_masks(model).items():
        np.testing.assert_array_equal(mask, masks[name])


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_best_epoch_after_pruning_needs_no_warning(wrapped):
    model = dense_net()
    if wrapped:
        model = tf_synflow.prune(model, 2, policy=BIGGEST)
    model.compile("sgd", LOSS)
    stop = keras.callbacks.EarlyStopping(
        "rank", mode="min", patience=2, restore_best_weights=True, start_from_epoch=1
    )
    callback = tf_synflow.PruningCallback(6, BIGGEST, epoch=1)
    x, y = images(model, 16)
    model.fit(x, y, 8, 6, 0, [Early(), callback, stop])
    assert stop.best_epoch == 1
    assert alive(model, callback.masks) == (0, 9)


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_weights_put_back_at_the_end_of_an_epoch(wrapped, first):
    model = dense_net()
    if wrapped:
        model = tf_synflow.prune(model, 2, policy=BIGGEST)
    model.compile("sgd", LOSS)
    early = Early()

    def put_back(epoch, logs):
        if epoch == 2:
            model.set_weights(early.weights)

    callbacks = [
        tf_synflow.PruningCallback(6, BIGGEST, epoch=1),
        keras.callbacks.LambdaCallback(on_epoch_end=put_back),
    ]
    seen = []
    count = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(
            sum(np.count_nonzero(v.numpy()) for v in kernels(model).values())
        )
    )
    x, y = images(model, 16)
    with pytest.warns(UserWarning, match=BEFORE):
        history = model.fit(
            x, y, 16, 4, 0, [early, *callbacks[:: 1 if first else -1], count]
        ).history
    masks = largest(early.kernels, 9)
    assert alive(model, masks) == (0, 9)
    assert history["density"] == [0.5 if wrapped else 1.0, *[9 / 54] * 3]
    assert seen == [27 if wrapped else 54, 9, 9, 9]


@pytest.mark.parametrize("turn", [1, -1])
def test_several_callbacks_log_the_density_of_the_model(turn):
    """64 weights: in turn 32, 16 and 8 of them, whatever the callbacks' order."""
    inputs = keras.Input((8,))
    x = layers.Dense(4, name="a")(inputs)
    model = randomise(keras.Model(inputs, layers.Dense(8, name="b")(x)))
    model.compile("sgd", "mse")
    callbacks = [
        tf_synflow.PruningCallback(ratio, BIGGEST, epoch=epoch)
        for ratio, epoch in ((2, 1), (4, 2), (8, 4))
    ]
    counted = []

    def count(epoch, logs):
        found = kernels(model).values()
        counted.append(sum(np.count_nonzero(v.numpy()) for v in found))
        assert [logs["density"]] == [counted[-1] / 64]
        assert tf_synflow.report(model).totals["prunable"]["kept"] == counted[-1]

    count = keras.callbacks.LambdaCallback(on_epoch_end=count)
    x = np.random.default_rng(0).standard_normal((8, 8))
    history = model.fit(x, x, 8, 6, 0, [*callbacks[::turn], count]).history
    assert counted == [64, 32, 16, 16, 8, 8]
    assert history["density"] == [1, 0.5, 0.25, 0.25, 0.125, 0.125]
    for callback in callbacks:
        assert sum(int(mask.sum()) for mask in callback.masks.values()) == 8
        assert alive(model, callback.masks) == (0, 8)


def test_averages_are_sparse_under_mixed_float16_too():
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = pruned_net()
        masks = tf_synflow.get_masks(model)
        model.compile(keras.optimizers.Adam(0.01, use_ema=True), LOSS)
        watch = Watch(masks)
        callbacks = [watch, tf_synflow.PruningCallback()]
        model.fit(*images(model, 32), 8, 2, 0, callbacks)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert watch.seen == 0


def test_an_epoch_that_never_comes_is_warned_of():
    model = residual_net()
    model.compile("sgd", LOSS)
    callback = tf_synflow.PruningCallback(2, policy(), epoch=3)
    with pytest.warns(UserWarning, match="beginning of epoch 3 .* nothing is pruned"):
        model.fit(*images(model, 8), verbose=0, callbacks=[callback])


def test_an_impossible_ratio_is_refused_before_any_epoch():
    model = residual_net()
    model.compile("sgd", LOSS)
    before = model.get_weights()
    callback = tf_synflow.PruningCallback(1e5, policy(), epoch=2)
    with pytest.raises(ValueError, match="the highest ratio"):
        model.fit(*images(model, 8), epochs=3, verbose=0, callbacks=[callback])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_pruned_model_goes_on_from_its_masks():
    model = pruned_net()
    first = tf_synflow.get_masks(model)
    model.compile(OPTIMIZERS["sgd"](), LOSS)
    callback = tf_synflow.PruningCallback(2 * RATIO, policy())
    model.fit(*images(model, 8), verbose=0, callbacks=[callback])
    second = tf_synflow.get_masks(model)
    assert sum(m.sum() for m in second.values()) < sum(m.sum() for m in first.values())
    assert all((second[n] <= first[n]).all() for n in first)
    assert alive(model, second)[0] == 0


def test_a_constraint_of_the_users_is_kept():
    inputs = keras.Input((4,))
    constraint = keras.constraints.NonNeg()
    outputs = keras.layers.Dense(6, kernel_constraint=constraint, name="a")(inputs)
    model = tf_synflow.prune(keras.Model(inputs, outputs), 2, iterations=2)
    model.compile(keras.optimizers.SGD(1.0), LOSS)
    model.fit(*images(model, 64), 8, 3, 0, [tf_synflow.PruningCallback()])
    kernel = read(model).weights["a/kernel"].numpy()
    assert (kernel >= 0).all()
    assert not kernel[~tf_synflow.get_masks(model)["a/kernel"]].any()


@pytest.mark.parametrize(
    ("optimizer", "wrapped"),
    [
        ("sgd", True),
        ("sgd", False),
        ("adam with ema", False),
        ("ema overwriting", True),
        ("legacy", False),
    ],
)
def test_zeros_hold_on_two_devices(two_devices, optimizer, wrapped):
    with two_devices.scope():
        model = randomise(residual_net())
        if wrapped:
            model = tf_synflow.prune(model, RATIO, iterations=3)
        model.compile(OPTIMIZERS[optimizer](), LOSS)
    callback = tf_synflow.PruningCallback(*([] if wrapped else [RATIO, policy()]))
    x, y = images(model, 32)
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    model.fit(data, epochs=2, verbose=0, callbacks=[callback])
    assert isinstance(model.weights[0], tf.distribute.DistributedValues)
    pruned, kept = alive(model, callback.masks)
    assert pruned == 0
    assert kept == 2 * sum(mask.sum() for mask in callback.masks.values())


def test_masks_on_two_devices_are_those_on_one(two_devices):
    expected = tf_synflow.get_masks(pruned_net())
    with two_devices.scope():
        model = randomise(residual_net())
    masks = tf_synflow.get_masks(tf_synflow.prune(model, RATIO, iterations=3))
    for name, mask in expected.items():
        np.testing.assert_array_equal(masks[name], mask)


def fit(callback, model=None):
    model = model or residual_net()
    model.compile("sgd", LOSS)
    model.fit(*images(model, 8), verbose=0, callbacks=[callback])


@pytest.mark.parametrize(
    ("use", "kind", "message"),
    [
        (
            lambda: fit(tf_synflow.PruningCallback()),
            ValueError,
            "is not pruned, so there",
        ),
        (lambda: tf_synflow.PruningCallback(float("nan")), ValueError, "ratio must be"),
        (lambda: tf_synflow.PruningCallback("10"), TypeError, "ratio must be a number"),
        (lambda: tf_synflow.PruningCallback(2, "snip"), TypeError, "policy must be"),
        (
            lambda: tf_synflow.PruningCallback(2, epoch=-1),
            ValueError,
            "epoch must be at least 0, got -1",
        ),
        (lambda: tf_synflow.PruningCallback(2, epoch="1"), TypeError, "whole number"),
        (lambda: tf_synflow.PruningCallback(policy=policy()), ValueError, "add ratio="),
        (
            lambda: fit(tf_synflow.PruningCallback(2, policy()), pruned_net()),
            ValueError,
            "is pruned to .* already",
        ),
        (
            lambda: fit(tf_synflow.PruningCallback(1e5, policy())),
            ValueError,
            "the highest ratio",
        ),
    ],
)
def test_bad_input_is_refused(use, kind, message):
    with pytest.raises(kind, match=message):
        use()


def scalars(folder):
    """(tag, step) to value of all events in a folder."""
    found = {}
    for file in folder.glob("events.out.tfevents.*"):
        for event in tf.compat.v1.train.summary_iterator(str(file)):
            for value in event.summary.value:
                found[value.tag, event.step] = float(tf.make_ndarray(value.tensor))
    return found


@pytest.mark.filterwarnings("ignore:tf_record_iterator")
def test_densities_go_to_tensorboard(tmp_path):
    model = randomise(residual_net())
    model.compile("sgd", LOSS)
    callback = tf_synflow.PruningCallback(ratio=5, epoch=1, log_dir=tmp_path)
    model.fit(*images(model, 16), epochs=3, verbose=0, callbacks=[callback])
    found = scalars(tmp_path)
    assert {step for _, step in found} == {0, 1, 2}
    totals = tf_synflow.report(model).totals
    for step in (1, 2):
        assert found["density", step] == pytest.approx(35 / 175)
        assert found["effective_density", step] == pytest.approx(
            totals["effective_density"]
        )
        assert found["dead_channels", step] == totals["dead_channels"]
        for row in tf_synflow.report(model).layers:
            name = row["name"]
            assert found[f"density/{name}", step] == pytest.approx(row["density"])
            assert found[f"dead_channels/{name}", step] == row["dead_channels"]
    assert found["density", 0] == found["effective_density", 0] == 1
