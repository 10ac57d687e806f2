"""Recipes, batches and going on: against numpy, and against undisturbed runs."""

import dataclasses
import shutil

import numpy as np
import pytest
import tensorflow as tf
from nets import randomise, residual_net

import tf_synflow
from tf_synflow.experiments import training
from tf_synflow.experiments.checkpoints import Checkpoints, HistoryFile, read_history
from tf_synflow.experiments.data import Dataset, Share
from tf_synflow.experiments.recipe import Recipe
from tf_synflow.experiments.recipe import optimizer as make_optimizer
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras
from tf_synflow.optimizers import SGD

layers = keras.layers

RECIPE = Recipe(epochs=3, batch_size=8, learning_rate=0.05, seed=4, weight_decay=1e-3)


def data_set(count=30, **how):
    generator = np.random.default_rng(0)

    def split(size):
        x = generator.integers(0, 256, (size, 4, 4, 2)).astype("uint8")
        return x, generator.integers(0, 4, size)

    scaled = {"scale": 255.0, "mean": (0.4, 0.5), "std": (0.2, 0.3)}
    return Dataset(split(count), split(11), 4, **{**scaled, **how})


def first(dataset, count):
    return [(x.numpy(), y.numpy()) for x, y in dataset.take(count)]


def torch_sgd(w, gradients, rates, momentum, nesterov, decay):
    """PyTorch's documentation of torch.optim.SGD, line by line, in float64."""
    w, buffer = np.array(w, "float64"), None
    for g, rate in zip(gradients, rates, strict=True):
        g = g + decay * w
        buffer = g if buffer is None else momentum * buffer + g
        g = g + momentum * buffer if nesterov else buffer
        w = w - rate * g
    return w


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", [0.0, 1e-4, 5e-2])
def test_momentum_and_weight_decay_are_those_of_pytorch(nesterov, decay):
    generator = np.random.default_rng(1)
    start = generator.standard_normal((3, 2))
    gradients = generator.standard_normal((20, 3, 2))
    recipe = dataclasses.replace(
        RECIPE, epochs=20, decay="step", drops=(7, 15), drop_factor=0.2
    )
    schedule = make_optimizer(recipe, steps=1)._learning_rate
    variable = tf.Variable(start, dtype=tf.float64)
    optimizer = SGD(schedule, 0.9, nesterov, decay)
    for g in gradients:
        optimizer.apply_gradients([(tf.constant(g), variable)])
    rates = [0.05] * 7 + [0.01] * 8 + [0.002] * 5
    expected = torch_sgd(start, gradients, rates, 0.9, nesterov, decay)
    np.testing.assert_allclose(variable.numpy(), expected, rtol=1e-6)


def test_a_recipe_says_which_momentum_and_which_learning_rate():
    usual = make_optimizer(RECIPE, steps=1).get_config()
    assert (usual["momentum"], usual["nesterov"]) == (0.9, True)
    other = dataclasses.replace(
        RECIPE, momentum=0.5, nesterov=False, decay="garipov", epochs=10
    )
    made = make_optimizer(other, steps=7)
    assert (made.momentum, made.nesterov) == (0.5, False)
    # The epochs are counted from 1: the sixth is the first of the second half.
    rates = [float(made._learning_rate(7 * e)) for e in (0, 4, 5, 8, 9)]
    want = [0.05, 0.05, 0.05 * (1 - 0.99 / 4), 5e-4, 5e-4]
    np.testing.assert_allclose(rates, want, rtol=1e-9)


def test_weight_decay_is_on_every_trainable_variable():
    """A loss that does not depend on the weights leaves decay alone to move them."""
    model = randomise(residual_net())
    before = {v.name: v.numpy() for v in model.weights}
    model.compile(SGD(0.5, momentum=0.0, l2=0.25), lambda y, p: 0 * tf.reduce_sum(p))
    model.train_on_batch(np.ones((2, 4, 4, 2), "float32"), np.zeros(2))
    for variable in model.trainable_variables:
        want = before[variable.name] * (1 - 0.5 * 0.25)
        np.testing.assert_allclose(variable.numpy(), want, rtol=1e-6)


def test_the_optimizer_survives_saving(tmp_path):
    model = randomise(residual_net())
    model.compile(SGD(0.01, 0.8, False, 1e-3), "mse")
    x, y = np.ones((2, 4, 4, 2), "float32"), np.zeros((2, 4))
    model.train_on_batch(x, y)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    model.train_on_batch(x, y)
    again.train_on_batch(x, y)
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for a, b in zip(model.weights, again.weights, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decay": "step"}, "which needs at least one: got decay 'step' and drops"),
        ({"drops": (2,)}, "got decay 'cosine' and drops"),
        ({"decay": "step", "drops": (2, 1)}, "rising numbers of epochs"),
        ({"decay": "step", "drops": (0, 1)}, "rising numbers of epochs, 1 or more"),
        ({"decay": "linear"}, "decay of the learning rate"),
        ({"grda": (1e-3, 0.6)}, "has no weight decay"),
        ({"momentum": 1.0}, r"momentum must be within \[0, 1\), got 1.0"),
        ({"weight_decay": -1.0}, "l2 must be finite and not negative"),
        ({"learning_rate": -0.1, "decay": "constant"}, "not negative"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        make_optimizer(dataclasses.replace(RECIPE, **change), steps=3)


def test_an_epoch_has_every_image_once_in_an_order_of_its_own():
    data = data_set()
    whole = data.normalised(data.train[0]).numpy()
    seen = first(data.training(8, seed=1), 8)
    assert [len(y) for _, y in seen] == [8, 8, 8, 6] * 2
    orders = []
    for epoch in (seen[:4], seen[4:]):
        x, y = (np.concatenate(part) for part in zip(*epoch, strict=True))
        order = [int(np.argmin(np.abs(whole - one).sum((1, 2, 3)))) for one in x]
        assert sorted(order) == list(range(30))
        np.testing.assert_array_equal(x, whole[order])
        np.testing.assert_array_equal(y, data.train[1][order])
        orders.append(order)
    assert orders[0] != orders[1]
    assert orders[0] != list(range(30))
    other = first(data.training(8, seed=2), 1)
    assert not np.array_equal(other[0][0], seen[0][0])


def test_normalisation_is_that_of_the_formula():
    data = data_set()
    x = (data.test[0] / 255 - [0.4, 0.5]) / [0.2, 0.3]
    (found, labels) = first(data.testing(), 1)[0]
    np.testing.assert_allclose(found, x, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(labels, data.test[1])


def test_every_crop_is_one_of_the_padded_image_and_all_of_them_come():
    data = data_set(padding=1, mirrored=True)
    padded = np.pad(data.train[0], [(0, 0), (1, 1), (1, 1), (0, 0)])  # black
    padded = data.normalised(padded).numpy()
    seen = {}
    for x, y in first(data.training(30, seed=3), 40):
        for image, label in zip(x, y, strict=True):
            found = [
                (i, r, c, flip)
                for i in range(30)
                for r in range(3)
                for c in range(3)
                for flip in (1, -1)
                if np.array_equal(image, padded[i, r : r + 4, c : c + 4][:, ::flip])
            ]
            assert found and data.train[1][found[0][0]] == label
            seen[found[0][1:]] = seen.get(found[0][1:], 0) + 1
    # 1,200 draws over 18 kinds: 67 each, give or take.
    assert len(seen) == 18 and min(seen.values()) > 35 and max(seen.values()) < 110


@pytest.mark.parametrize("replicas", [1, 2])
def test_shares_put_together_are_the_whole_batch(replicas):
    data = data_set(padding=1, mirrored=True)
    whole = first(data.training(8, 1, first_epoch=2), 6)
    parts = [
        first(data.training(8, 1, 2, Share(n * replicas, replicas, 2)), 6 * replicas)
        for n in range(2 // replicas)
    ]
    for step in range(6):
        own = [p[step * replicas + r] for p in parts for r in range(replicas)]
        for k in range(2):
            joined = np.concatenate([part[k] for part in own])
            np.testing.assert_array_equal(joined, whole[step][k])


def test_an_odd_rest_is_split_evenly_by_leaving_images_out():
    sizes = [
        len(y)
        for n in range(2)
        for _, y in first(data_set(29).training(8, 1, share=Share(n, 1, 2)), 4)
    ]
    assert sizes == [4, 4, 4, 2] * 2


def test_a_last_batch_that_replicas_cannot_share_is_refused():
    """Of no images BatchNormalization would make NaN."""
    data = data_set(25)
    data.training(8, 1)
    data.training(7, 1, share=Share(0, 1, 4))
    with pytest.raises(ValueError, match="would have 1 images, too few for 2 replicas"):
        data.training(8, 1, share=Share(0, 1, 2))


def with_dropout():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 3, name="conv", activation="relu")(inputs)
    x = layers.Dropout(0.5, rng_type="stateful")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, name="fc")(x))


def pruned(net=residual_net):
    keras.utils.set_random_seed(0)
    return tf_synflow.prune(net(), 2, iterations=3)


class Killed(BaseException):
    """What no handler of errors catches."""


class Kill(keras.callbacks.Callback):
    def __init__(self, batch):
        super().__init__()
        self.left = batch

    def on_train_batch_end(self, batch, logs=None):
        self.left -= 1
        if not self.left:
            raise Killed


@pytest.mark.parametrize(
    ("batch", "grda", "net"),
    [
        (2, None, residual_net),
        (5, None, residual_net),
        (11, (1e-3, 0.6), residual_net),
        (11, None, with_dropout),
    ],
)
def test_a_run_cut_short_ends_as_an_undisturbed_one(
    batch, grda, net, tmp_path, monkeypatch
):
    data = data_set(padding=1, mirrored=True)
    recipe = dataclasses.replace(RECIPE, grda=grda, weight_decay=0.0 if grda else 1e-3)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    undisturbed = pruned(net)
    expected = training.train(read(undisturbed), data, tmp_path / "a", recipe)
    with monkeypatch.context() as patch:
        callback = training.PruningCallback
        kill = [Kill(batch)]

        class Both(callback):
            def on_train_batch_end(self, number, logs=None):
                super().on_train_batch_end(number, logs)
                kill[0].on_train_batch_end(number)

        patch.setattr(training, "PruningCallback", Both)
        with pytest.raises(Killed):
            training.train(read(pruned(net)), data, tmp_path / "b", recipe)
    again = pruned(net)
    found = training.train(read(again), data, tmp_path / "b", recipe)
    for a, b in zip(undisturbed.weights, again.weights, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes(), a.name
    assert {**found, "seconds": 0} == {**expected, "seconds": 0}
    histories = [read_history(tmp_path / name) for name in "ab"]
    for row in histories[0] + histories[1]:
        row["seconds"] = 0
    assert histories[0] == histories[1]
    assert [p.name for p in (tmp_path / "b" / "checkpoints").iterdir()] == ["epoch_3"]
    # And once more: it is finished, so nothing is trained.
    third = pruned(net)
    assert training.train(read(third), data, tmp_path / "b", recipe) == found
    assert third.weights[0].numpy().tobytes() == again.weights[0].numpy().tobytes()


def empty_history(checkpoint):
    (checkpoint / "history.csv").write_text("")


def another_accuracy(checkpoint):
    path = checkpoint / "history.csv"
    head, *rows = path.read_text().splitlines()
    place = head.split(",").index("val_accuracy")
    first = rows[0].split(",")
    first[place] = "0.9921875"
    path.write_text("\n".join([head, ",".join(first), *rows[1:]]) + "\n")


def a_row_less(checkpoint):
    path = checkpoint / "history.csv"
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")


def another_weight(checkpoint):
    path = checkpoint / "state.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def no_record(checkpoint):
    (checkpoint / "checkpoint.json").unlink()


def another_epoch(checkpoint):
    checkpoint.rename(checkpoint.with_name("epoch_2"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """Of three epochs; and a model to set to it."""
    folder = tmp_path_factory.mktemp("trained")
    training.train(read(pruned()), data_set(), folder, RECIPE, run="mine")
    return folder / "checkpoints", pruned()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (empty_history, "history.csv is not as it was written"),
        (another_accuracy, "history.csv is not as it was written"),
        (a_row_less, "history.csv is not as it was written"),
        (another_weight, "state.data-00000-of-00001 is not as it was written"),
        (no_record, "checkpoint.json"),
        (another_epoch, "'epochs': 3"),
        (None, "'run': 'mine'"),
    ],
)
def test_a_checkpoint_that_is_not_as_it_was_written_is_refused(
    checkpoint, damage, message, tmp_path
):
    (written, model), run = checkpoint, "mine"
    shutil.copytree(written, tmp_path / "checkpoints")
    before = [weight.numpy() for weight in model.weights]
    if damage is None:
        run = "yours"
    else:
        damage(tmp_path / "checkpoints" / "epoch_3")
    with pytest.raises(ValueError, match=f"{tmp_path}.*is damaged .*{message}"):
        training.train(read(model), data_set(), tmp_path, RECIPE, run=run)
    # Nothing of it is in the model, which a program may go on with.
    for a, b in zip(model.weights, before, strict=True):
        assert a.numpy().tobytes() == b.tobytes()


@pytest.mark.parametrize(
    "text",
    ["", "epoch,loss\n", "epoch,loss\n2,1\n", "epoch,loss\n1,1\n1,1\n", "loss\n1\n"]
    + ["epoch,loss\n1\n", "epoch,loss\n1,1,1\n", "epoch,loss\n1,\n", "\0\0\0"],
)
def test_a_history_that_lacks_something_is_refused(text, tmp_path):
    (tmp_path / "history.csv").write_text(text)
    with pytest.raises(ValueError, match="history.csv' is damaged"):
        read_history(tmp_path)


def without_batch_norm():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv")(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(x)
    outputs = layers.Dense(4, name="fc")(layers.Flatten()(x))
    return keras.Model(inputs, outputs)


def test_two_devices_compute_what_one_does(two_devices, tmp_path):
    data = data_set(80, padding=1, mirrored=True)
    recipe = dataclasses.replace(RECIPE, epochs=2)  # of ten steps each
    models = []
    for name, strategy in [("one", tf.distribute.get_strategy()), ("two", two_devices)]:
        with strategy.scope():
            model = tf_synflow.prune(without_batch_norm(), 3, iterations=3)
        (tmp_path / name).mkdir()
        training.train(read(model), data, tmp_path / name, recipe)
        models.append(model)
    assert int(models[1].optimizer.iterations.numpy()) == 20
    for a, b in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=0, atol=1e-5)
    rows = [read_history(tmp_path / name) for name in ("one", "two")]
    for a, b in zip(*rows, strict=True):
        assert a["val_accuracy"] == b["val_accuracy"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def with_all_that_training_changes():
    """Also what each replica has of its own: BatchNormalization and Dropout."""
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.7)(x))
    x = layers.Dropout(0.5, rng_type="stateful")(layers.Flatten()(x))
    return keras.Model(inputs, layers.Dense(4, name="fc")(x))


def on_each(strategy, variable):
    return [part.numpy() for part in strategy.experimental_local_results(variable)]


def test_a_run_of_two_replicas_cut_short_ends_as_an_undisturbed_one(
    two_devices, tmp_path, monkeypatch
):
    """Bit for bit on both replicas: weights, statistics, and all of the optimizer."""
    data, recipe = data_set(16, mirrored=True), dataclasses.replace(RECIPE, epochs=2)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    whole.mkdir()

    class Copying(training.PruningCallback):
        """Puts aside what a run that is killed in its second epoch leaves."""

        def on_train_batch_end(self, batch, logs=None):
            super().on_train_batch_end(batch, logs)
            if (whole / "checkpoints" / "epoch_1").exists() and not cut.exists():
                shutil.copytree(whole, cut)

    monkeypatch.setattr(training, "PruningCallback", Copying)

    def run(workdir):
        keras.utils.set_random_seed(0)
        with two_devices.scope():
            plain = with_all_that_training_changes()
        model = tf_synflow.prune(plain, 2, criterion="magnitude")
        found = training.train(read(model), data, workdir, recipe)
        rows = read_history(workdir)
        return model, {**found, "seconds": 0}, [{**r, "seconds": 0} for r in rows]

    undisturbed, *expected = run(whole)
    resumed, *found = run(cut)
    assert found == expected
    assert len(found[1]) == 2
    states = [[*m.weights, *m.optimizer.variables] for m in (undisturbed, resumed)]
    apart = []
    for a, b in zip(*states, strict=True):
        first, second = on_each(two_devices, a), on_each(two_devices, b)
        assert len(first) == 2, a.name
        assert [x.tobytes() for x in first] == [x.tobytes() for x in second], b.name
        if first[0].tobytes() != first[1].tobytes():
            apart.append(b.name.split("/")[-1])
    # Of the images that the replica has seen, and nothing else.
    assert apart == ["moving_mean:0", "moving_variance:0"]


def averaging(recipe):
    adam = keras.optimizers.Adam(0.01, use_ema=True, ema_momentum=0.9)
    return keras.mixed_precision.LossScaleOptimizer(adam, initial_scale=8.0)


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda recipe: make_optimizer(recipe, 1),
        lambda recipe: make_optimizer(dataclasses.replace(recipe, grda=(1e-3, 0.6)), 1),
        averaging,
    ],
    ids=["sgd", "grda", "averaging"],
)
def test_a_checkpoint_has_every_variable_as_each_replica_has_it(
    optimizer, two_devices, tmp_path
):
    """Random values, other ones on each replica where replicas go apart in training."""

    def model_and_state(strategy):
        with strategy.scope():
            model = with_all_that_training_changes()
            model.compile(optimizer(dataclasses.replace(RECIPE, weight_decay=0.0)))
        return model, Checkpoints(
            tmp_path / "checkpoints", HistoryFile(tmp_path / "h.csv", [])
        )

    def state(model):
        scaler = model.optimizer
        inner = getattr(scaler, "inner_optimizer", scaler)
        dropout = next(la for la in model.layers if isinstance(la, layers.Dropout))
        generator = dropout._random_generator._generator.state
        scales = [scaler._loss_scale._current_loss_scale] if inner is not scaler else []
        return [*model.weights, *inner.variables, generator, *scales]

    saved, checkpoints = model_and_state(two_devices)
    with two_devices.scope():
        saved.optimizer.build(saved.trainable_variables)
    generator, values = np.random.default_rng(5), []
    for variable in state(saved):
        draws = 9 * generator.random((2, *variable.shape)) + 1
        if "moving_" not in variable.name or "average" in variable.name:
            draws[1] = draws[0]
        parts = two_devices.experimental_local_results(variable)
        values.append([])
        for part, draw in zip(parts, draws, strict=True):
            part.assign(tf.cast(draw, part.dtype))
            values[-1].append(part.numpy().tobytes())
    assert len({tuple(v) for v in values}) > len(saved.weights)
    checkpoints.set_model(saved)
    checkpoints.history.rows.append({"epoch": 1})
    checkpoints.on_epoch_end(0)
    found, checkpoints = model_and_state(two_devices)
    assert checkpoints.restore(found) == 1
    parts = [on_each(two_devices, variable) for variable in state(found)]
    assert [[part.tobytes() for part in own] for own in parts] == values
    # Other devices than before: one has the mean, where there were two.
    one, checkpoints = model_and_state(tf.distribute.get_strategy())
    assert checkpoints.restore(one) == 1
    for variable, own in zip(state(one), parts, strict=True):
        mean = own[0] / 2 + own[1] / 2 if own[0].dtype.kind == "f" else own[0]
        np.testing.assert_allclose(variable.numpy(), mean, rtol=1e-6)
