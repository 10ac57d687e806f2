"""Dead heads and units of MultiHeadAttention are taken out; the function stays."""

import keras as keras3
import numpy as np
import pytest

import tf_synflow
from tf_synflow.keras2.imports import keras as keras2


@pytest.fixture(params=[keras2, keras3], ids=["keras2", "keras3"])
def keras(request):
    """Either Keras, computing in float64."""
    request.param.backend.set_floatx("float64")
    request.param.mixed_precision.set_global_policy("float64")
    yield request.param
    request.param.backend.set_floatx("float32")
    request.param.mixed_precision.set_global_policy("float32")


def net(keras, biased, heads=4, keys=6, values=5):
    """A transformer block, all of its weights random."""
    layer = keras.layers
    inputs = keras.Input((5, 8))
    x = layer.Dense(8, name="in")(inputs)
    mha = layer.MultiHeadAttention(
        heads, keys, value_dim=values, use_bias=biased, name="mha"
    )
    x = layer.Add()([x, mha(layer.LayerNormalization(name="ln")(x), x)])
    y = layer.Dense(8, name="down")(layer.Dense(12, "gelu", name="up")(x))
    x = layer.GlobalAveragePooling1D()(layer.Add()([x, y]))
    model = keras.Model(inputs, layer.Dense(3, name="head")(x))
    generator = np.random.default_rng(1)
    for weight in model.weights:
        weight.assign(generator.standard_normal(weight.shape) * 0.4)
    return model


GENERATOR = np.random.default_rng(2)
X = GENERATOR.standard_normal((16, 5, 8))
Y = GENERATOR.integers(0, 3, 16)


def by_hand(model):
    """Masks in which head 2 is dead, and some units of the other heads."""
    masks = {
        name: GENERATOR.random(tuple(score.shape)) < 0.7
        for name, score in tf_synflow.PruningPolicy("magnitude").score(model).items()
    }
    for part in ("query", "key", "value"):
        masks[f"mha/{part}/kernel"][0] = True
    masks["mha/attention_output/kernel"][..., 0] = True
    masks["mha/attention_output/kernel"][2] = False  # nobody reads head 2
    for head in (0, 1, 3):
        masks["mha/key/kernel"][:, head, [1, 2]] = False  # two pairs of each head
    masks["mha/key/kernel"][:, 3, 4] = False  # and one more of head 3
    for head in range(4):
        masks["mha/attention_output/kernel"][head, head] = False
    return masks


def outputs(model):
    return np.asarray(model(X))


def trained(keras, model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    callback = tf_synflow.PruningCallback()
    model.fit(X, Y, 16, epochs=50, verbose=0, shuffle=False, callbacks=[callback])
    return model


@pytest.mark.parametrize("biased", [True, False])
def test_outputs_stay_before_and_after_training(keras, biased, tmp_path):
    model = net(keras, biased)
    pruned = tf_synflow.apply_masks(model, by_hand(model))
    small = tf_synflow.shrink(pruned)
    layer = small.get_layer("mha")
    # Head 3 has three pairs left, heads 0 and 1 four: so each keeps four.
    config = layer.get_config()
    assert (config["num_heads"], config["key_dim"], config["value_dim"]) == (3, 4, 4)
    assert np.abs(outputs(pruned) - outputs(small)).max() <= 1e-12
    assert small.count_params() < 0.75 * pruned.count_params() or keras is keras2
    untrained = outputs(small)
    trained(keras, pruned), trained(keras, small)
    assert np.abs(outputs(small) - untrained).max() > 0.1
    assert np.abs(outputs(pruned) - outputs(small)).max() <= 1e-12
    # Both of these are plain layers of Keras once stripped, also from a file.
    plain = tf_synflow.strip(small)
    assert type(plain.get_layer("mha")) is keras.layers.MultiHeadAttention
    assert np.abs(outputs(plain) - outputs(small)).max() <= 1e-12
    small.save(tmp_path / "small.keras")
    loaded = tf_synflow.load_model(tmp_path / "small.keras")
    assert np.abs(outputs(loaded) - outputs(small)).max() <= 1e-14
    smaller = tf_synflow.get_masks(small)
    for name, mask in tf_synflow.get_masks(loaded).items():
        np.testing.assert_array_equal(mask, smaller[name])


def test_expand_puts_trained_weights_back(keras):
    model = net(keras, True)
    pruned = tf_synflow.apply_masks(model, by_hand(model))
    small = trained(keras, tf_synflow.shrink(pruned))
    whole = tf_synflow.expand(small, pruned)
    assert np.abs(outputs(whole) - outputs(small)).max() <= 1e-12
    assert type(whole.get_layer("mha")) is keras.layers.MultiHeadAttention
    for name, mask in tf_synflow.get_masks(pruned).items():
        np.testing.assert_array_equal(mask, tf_synflow.get_masks(whole)[name])


def test_a_layer_whose_heads_are_all_dead_keeps_one(keras):
    model = net(keras, True)
    masks = by_hand(model)
    masks["mha/attention_output/kernel"][:] = False
    pruned = tf_synflow.apply_masks(model, masks)
    small = tf_synflow.shrink(pruned)
    config = small.get_layer("mha").get_config()
    assert (config["num_heads"], config["value_dim"]) == (1, 1)
    assert np.abs(outputs(pruned) - outputs(small)).max() <= 1e-12


def test_a_query_unit_without_weights_stays_if_its_bias_learns(keras):
    for biased in (True, False):
        model = net(keras, biased, heads=1, keys=3, values=2)
        names = [n for n in tf_synflow.PruningPolicy("magnitude").score(model)]
        shapes = {w: tuple(v.shape) for w, v in _weights(model).items() if w in names}
        masks = {name: np.ones(shape, bool) for name, shape in shapes.items()}
        masks["mha/query/kernel"][:, 0, 1] = False
        small = tf_synflow.shrink(tf_synflow.apply_masks(model, masks))
        assert small.get_layer("mha").get_config()["key_dim"] == (3 if biased else 2)


def _weights(model):
    from tf_synflow import frameworks

    return frameworks.read(model).weights


def test_the_report_counts_what_shrink_leaves():
    model = net(keras3, True)
    pruned = tf_synflow.apply_masks(model, by_hand(model))
    totals = tf_synflow.report(pruned).totals
    assert totals["shrunk"]["parameters"] == tf_synflow.shrink(pruned).count_params()
    assert totals["uncounted"] == []
    # Each kernel of attention is used once for each of the 5 tokens.
    rows = {row["name"]: row for row in tf_synflow.report(pruned).layers}
    assert rows["mha/query/kernel"]["macs"] == 5 * 8 * 4 * 6
    assert rows["mha/attention_output/kernel"]["macs"] == 5 * 4 * 5 * 8


def test_criteria_with_data_take_a_shrunk_keras_3_model(keras):
    """They convert it to Keras 2; in Keras 2 nothing is converted."""
    model = net(keras, biased=True)
    small = tf_synflow.shrink(tf_synflow.apply_masks(model, by_hand(model)))
    assert small.get_layer("mha").query_factor != 1
    scores = tf_synflow.PruningPolicy("snip", progress=False).score(small, (X, Y))
    whole = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    layer, step = small.get_layer("mha"), 1e-6
    kernel = (layer._query_dense if keras is keras2 else layer.query_dense).kernel
    value = kernel.numpy().copy()
    score = scores["mha/query/kernel"]
    slopes = []
    places = [np.unravel_index(i, value.shape) for i in score.argsort(None)[-2:]]
    for place in places:
        losses = []
        for sign in (1, -1):
            moved = value.copy()
            moved[place] += sign * step
            kernel.assign(moved)
            losses.append(float(whole(Y, small(X))))
        slopes.append(abs((losses[0] - losses[1]) / (2 * step) * value[place]))
    # The scores are those products, over the sum of all of them.
    assert score[places[0]] / score[places[1]] == pytest.approx(
        slopes[0] / slopes[1], rel=1e-5
    )
