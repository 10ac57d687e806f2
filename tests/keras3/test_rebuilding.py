"""Pruned, stripped, shrunk and expanded copies of Keras 3 models."""

import keras
import numpy as np
import pytest
import tf_keras

import tf_synflow
from tf_synflow.frameworks import read
from tf_synflow.keras3.constraints import KeepPruned

layers = keras.layers


def net(name="net"):
    """Two convolutions with a residual, a nested model, a frozen and a shared layer."""
    inner_in = keras.Input((8,))
    inner = keras.Model(
        inner_in, layers.Dense(8, "relu", name="d")(inner_in), name="inner"
    )
    shared = layers.Dense(8, name="shared", kernel_constraint="max_norm")
    inputs = keras.Input((6, 6, 2), name="image")
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv1")(inputs)
    x = layers.BatchNormalization(name="bn", trainable=False)(x)
    y = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv2")(x)
    x = layers.GlobalAveragePooling2D()(keras.ops.relu(x + y))
    x = shared(inner(shared(x)))
    model = keras.Model(inputs, layers.Dense(3, name="out")(x), name=name)
    generator = np.random.default_rng(0)
    for variable in model.weights:
        value = generator.standard_normal(variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.name else value)
    return model


X = np.random.default_rng(1).random((4, 6, 6, 2)).astype("float32")


def outputs(model):
    return keras.ops.convert_to_numpy(model(X, training=False))


def test_prune_leaves_the_model_as_it_was_and_shares_nothing():
    model = net()
    model.compile("sgd", "mse")
    before, config = model.get_weights(), model.to_json()
    pruned = tf_synflow.prune(model, 4, iterations=5, progress=False)
    assert not pruned.compiled
    assert type(pruned) is type(model)
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert model.to_json() == config
    own = {id(variable) for variable in model.variables}
    assert own.isdisjoint(map(id, pruned.variables))
    pruned.compile("sgd", "mse")
    pruned.train_on_batch(X, np.ones((4, 3)))
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_pruned_model_computes_with_the_kept_weights_only():
    model = net()
    masks = tf_synflow.PruningPolicy(iterations=5).masks(model, 4)
    pruned = tf_synflow.apply_masks(model, masks)
    by_hand = net()
    for name, variable in read(by_hand).weights.items():
        if name in masks:
            variable.assign(variable.numpy() * masks[name])
    np.testing.assert_array_equal(outputs(pruned), outputs(by_hand))
    assert pruned.count_params() == model.count_params()
    assert [layer.name for layer in pruned.layers] == [
        layer.name for layer in model.layers
    ]
    for name, mask in tf_synflow.get_masks(pruned).items():
        np.testing.assert_array_equal(mask, masks[name])


def test_masks_of_either_keras_fit_the_other(tmp_path):
    def build(k):
        return k.Sequential(
            [k.layers.InputLayer((5,)), k.layers.Dense(4, name="a")], name="n"
        )

    masks = tf_synflow.PruningPolicy(iterations=5).masks(build(tf_keras), 2)
    pruned = tf_synflow.apply_masks(build(keras), masks)
    tf_synflow.save_masks(tmp_path / "m.npz", tf_synflow.get_masks(pruned))
    again = tf_synflow.load_masks(tmp_path / "m.npz")
    back = tf_synflow.get_masks(tf_synflow.apply_masks(build(tf_keras), again))
    np.testing.assert_array_equal(back["a/kernel"], masks["a/kernel"])


def test_freezing_and_former_constraints_come_along_and_come_back():
    model = net()
    pruned = tf_synflow.prune(model, 4, iterations=5, progress=False)
    assert not pruned.get_layer("bn").trainable
    assert len(pruned.trainable_variables) == len(model.trainable_variables)
    held = pruned.get_layer("shared").kernel_constraint
    assert isinstance(held, KeepPruned)
    assert isinstance(held.other, keras.constraints.MaxNorm)
    assert held is pruned.get_layer("shared").kernel.constraint
    large = keras.ops.ones((8, 8)) * 10
    np.testing.assert_allclose(
        held(large), np.where(held.mask, keras.constraints.MaxNorm()(large), 0)
    )
    plain = tf_synflow.strip(pruned)
    assert isinstance(
        plain.get_layer("shared").kernel_constraint, keras.constraints.MaxNorm
    )
    assert plain.get_layer("conv1").kernel_constraint is None
    assert plain.get_layer("conv1").kernel.constraint is None
    np.testing.assert_array_equal(outputs(plain), outputs(pruned))


def test_pruning_goes_on_from_the_masks_and_never_brings_a_weight_back():
    once = tf_synflow.prune(net(), 2, iterations=5, progress=False)
    twice = tf_synflow.prune(once, 8, iterations=5, progress=False)
    first, second = tf_synflow.get_masks(once), tf_synflow.get_masks(twice)
    assert sum(m.sum() for m in second.values()) < sum(m.sum() for m in first.values())
    assert not any((second[n] & ~first[n]).any() for n in first)
    wider = {n: np.ones_like(mask) for n, mask in first.items()}
    with pytest.raises(ValueError, match="keeps weights that the model has pruned"):
        tf_synflow.apply_masks(once, wider)


def test_weights_loaded_over_a_pruned_model_are_told_and_zeroed_on_demand():
    pruned = tf_synflow.prune(net(), 4, criterion="magnitude")
    kept = sum(mask.sum() for mask in tf_synflow.get_masks(pruned).values())
    pruned.set_weights(net().get_weights())
    report = tf_synflow.report(pruned)
    assert report.totals["prunable"]["kept"] == report.totals["prunable"]["size"]
    assert any("count as kept" in note for note in report.notes)
    back = tf_synflow.zero_pruned(pruned)
    assert back == report.totals["prunable"]["size"] - kept
    assert tf_synflow.report(pruned).totals["prunable"]["kept"] == kept
    with pytest.raises(ValueError, match="has no masks"):
        tf_synflow.zero_pruned(net())


@pytest.mark.parametrize("ratio", [10, 40])
def test_a_shrunk_network_computes_the_same_and_expands_to_the_pruned_one(ratio):
    pruned = tf_synflow.prune(net(), ratio, progress=False, on_collapse="ignore")
    small = tf_synflow.shrink(pruned)
    assert small.count_params() < pruned.count_params()
    np.testing.assert_allclose(outputs(small), outputs(pruned), rtol=1e-5, atol=1e-5)
    whole = tf_synflow.expand(small, pruned)
    for one, other in zip(whole.get_weights(), pruned.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(
        *(
            np.concatenate([m.ravel() for m in tf_synflow.get_masks(x).values()])
            for x in (whole, pruned)
        )
    )


def test_the_report_is_that_of_the_same_network_in_keras_2():
    new = tf_synflow.models.build("resnet20", (8, 8, 1), 10, keras="keras")
    old = tf_synflow.models.build("resnet20", (8, 8, 1), 10)
    old.set_weights(new.get_weights())
    one, other = (
        tf_synflow.report(tf_synflow.prune(m, 10, iterations=5, progress=False))
        for m in (new, old)
    )
    assert one.to_dict()["layers"] == other.to_dict()["layers"]
    assert one.totals == other.totals


def test_a_class_that_takes_inputs_and_outputs_keeps_its_training_step():
    class Own(keras.Model):
        def train_step(self, data):
            return {"loss": 7.0}

    inputs = keras.Input((3,))
    model = Own(inputs, layers.Dense(2)(inputs))
    pruned = tf_synflow.prune(model, 2, iterations=2, progress=False)
    assert type(pruned) is Own


def test_a_class_keeps_its_training_step_if_its_init_passes_keywords_on():
    class Own(keras.Model):
        def __init__(self, inputs, outputs, **kwargs):
            super().__init__(inputs, outputs, **kwargs)

        def train_step(self, data):
            return {"loss": 7.0}

    inputs = keras.Input((3,))
    model = Own(inputs, layers.Dense(2)(inputs), name="own")
    pruned = tf_synflow.prune(model, 2, iterations=2, progress=False)
    assert type(pruned) is Own and pruned.name == "own"


def test_a_class_that_only_builds_its_graph_becomes_a_plain_model():
    class Backbone(keras.Model):
        def __init__(self, width):
            inputs = keras.Input((3,))
            super().__init__(inputs, layers.Dense(width, name="d")(inputs))

    model = Backbone(4)
    pruned = tf_synflow.prune(model, 2, iterations=2, progress=False)
    assert type(pruned) is not Backbone
    assert list(tf_synflow.get_masks(pruned)) == ["d/kernel"]


def test_a_layer_of_ones_own_is_pruned_scored_and_shrunk():
    @keras.saving.register_keras_serializable("test_rebuilding")
    class Mine(layers.Layer):
        def __init__(self, units, **kwargs):
            super().__init__(**kwargs)
            self.units = units

        def build(self, shape):
            self.w = self.add_weight(shape=(shape[-1], self.units), name="w")

        def call(self, x):
            return keras.ops.matmul(x, self.w)

        def get_config(self):
            return {**super().get_config(), "units": self.units}

        def get_prunable_weights(self):
            return [self.w]

    tf_synflow.register_linear_part(Mine, lambda layer, x, w: x @ w["w"])
    tf_synflow.register_channels(Mine, kernel="w", size="units")
    inputs = keras.Input((6,))
    x = Mine(16, name="mine")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="out")(keras.ops.relu(x)))
    pruned = tf_synflow.prune(model, 10, progress=False)
    assert list(tf_synflow.get_masks(pruned)) == ["mine/w", "out/kernel"]
    small = tf_synflow.shrink(pruned)
    assert small.count_params() < pruned.count_params()
    x = np.random.default_rng(0).random((3, 6)).astype("float32")
    np.testing.assert_allclose(small(x), pruned(x), rtol=1e-6)
    pruned.compile("adam", "mse")
    pruned.fit(x, np.ones((3, 3)), epochs=2, verbose=0)
    (mask, *_) = tf_synflow.get_masks(pruned).values()
    value = pruned.get_layer("mine").w.numpy()
    assert not value[~mask].any() and value[mask].all()


def test_rewinding_filter_rounds_and_ablations_take_keras_3_models():
    y = np.zeros((4, 3), "float32")

    def train(model):
        model.compile("sgd", "mse")
        model.fit(X, y, verbose=0)

    model = net()
    ticket = tf_synflow.prune_with_rewinding(model, 4, train, levels=2)
    masks = tf_synflow.get_masks(ticket)
    for name, variable in read(ticket).weights.items():
        start = read(model).weights[name].numpy()
        mask = masks.get(name, np.ones(start.shape, bool))
        np.testing.assert_array_equal(variable.numpy(), np.where(mask, start, 0))
    small = tf_synflow.prune_filters(model, 0.3, train, rounds=2)
    assert small.count_params() < model.count_params()
    assert small(X).shape == (4, 3)
    again = tf_synflow.ablations.reinitialise(ticket, seed=3)
    for name, mask in tf_synflow.get_masks(again).items():
        np.testing.assert_array_equal(mask, masks[name])
    assert not np.array_equal(
        again.get_layer("conv1").kernel, ticket.get_layer("conv1").kernel
    )


def test_a_criterion_of_ones_own_gets_a_keras_3_copy():
    def score(model, data):
        assert isinstance(model, keras.Model) and data == "mine"
        return {
            name: np.abs(variable.numpy())
            for name, variable in read(model).weights.items()
            if name in read(model).prunable
        }

    model = net()
    own = tf_synflow.PruningPolicy(score).masks(model, 4, "mine")
    magnitude = tf_synflow.PruningPolicy("magnitude").masks(model, 4)
    for name, mask in magnitude.items():
        np.testing.assert_array_equal(own[name], mask)


def texts(*words):
    import tensorflow as tf

    return tf.constant([[word] for word in words])


def with_text():
    layer = layers.TextVectorization(output_sequence_length=4)
    layer.adapt(["a b c d", "b c"])
    return layer, texts("a b", "c"), 6


def with_lookup(**vocabulary):
    layer = layers.StringLookup(output_mode="one_hot", **vocabulary)
    if not vocabulary:
        layer.adapt(np.array(["a", "b", "c", "a"]))
    return layer, texts("a", "c"), None


def with_documents():
    layer = layers.StringLookup(output_mode="tf_idf")
    layer.adapt(np.array([["a"], ["b"], ["a"]]))
    return layer, texts("a", "c"), None


def with_bins():
    layer = layers.Discretization(num_bins=4)
    x = np.random.default_rng(0).random((50, 4)).astype("float32")
    layer.adapt(x)
    return layer, x, 6


def with_statistics():
    layer = layers.Normalization()
    x = np.random.default_rng(0).random((50, 4)).astype("float32") * 9
    layer.adapt(x)
    return layer, x, None


@pytest.mark.parametrize(
    "make",
    [
        with_text,
        with_lookup,
        lambda: with_lookup(vocabulary=["a", "b", "c"]),
        with_documents,
        with_bins,
        with_statistics,
    ],
)
def test_what_was_learned_by_adapt_comes_along(make, tmp_path):
    layer, x, embedded = make()
    inputs = keras.Input(x.shape[1:], dtype=x.dtype.name)
    y = layer(inputs)
    if embedded:
        y = layers.Flatten()(layers.Embedding(embedded, 3)(y))
    model = keras.Model(inputs, layers.Dense(3)(y))
    np.testing.assert_array_equal(tf_synflow.strip(model)(x), model(x))
    pruned = tf_synflow.prune(model, 2, criterion="magnitude")
    pruned.save(tmp_path / "model.keras")
    again = tf_synflow.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again(x), pruned(x))


def test_an_optional_input_stays_optional():
    inputs = [keras.Input((3,)), keras.Input((3,), optional=True)]

    class First(layers.Layer):
        def call(self, x, other=None):
            return x

    model = keras.Model(inputs, layers.Dense(2)(First()(*inputs)))
    pruned = tf_synflow.prune(model, 2, criterion="magnitude")
    assert pruned([np.ones((1, 3)), None]).shape == (1, 2)


def test_expand_wants_models_of_one_keras():
    small = tf_synflow.shrink(tf_synflow.prune(net(), 10, progress=False))
    other = tf_keras.Sequential([tf_keras.Input((3,)), tf_keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="of Keras 3 and the other of Keras 2"):
        tf_synflow.expand(small, other)
