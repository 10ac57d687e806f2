"""SynFlow through attention, against what each weight's removal takes away."""

import frozen_flow
import keras as keras3
import numpy as np
import pytest
from frozen_flow import POLICY, compare, scored
from nets import randomise

import tf_synflow
from tf_synflow.keras2.imports import keras as keras2


@pytest.fixture(params=[keras2, keras3], ids=["keras2", "keras3"])
def keras(request):
    """Either Keras."""
    return request.param


def block(keras, norm, causal, layers=2):
    """A small transformer: patch embedding, blocks, mean over tokens, head."""
    layer = keras.layers
    inputs = keras.Input((3, 2))
    x = layer.Dense(4, name="patch")(inputs)
    for n in range(layers):

        def normed(x, name):
            return layer.LayerNormalization(name=name)(x)

        y = normed(x, f"ln{n}a") if norm == "pre" else x
        mha = layer.MultiHeadAttention(2, 2, value_dim=3, name=f"mha{n}")
        x = layer.Add()([x, mha(y, y, use_causal_mask=causal)])
        x = normed(x, f"ln{n}a") if norm == "post" else x
        y = normed(x, f"ln{n}b") if norm == "pre" else x
        y = layer.Dense(4, name=f"down{n}")(layer.Dense(5, "gelu", name=f"up{n}")(y))
        x = layer.Add()([x, y])
        x = normed(x, f"ln{n}b") if norm == "post" else x
    x = layer.GlobalAveragePooling1D()(x)
    return randomise(keras.Model(inputs, layer.Dense(2, name="head")(x)))


def block_flow(norm, causal, layers=2):
    sees = np.tri(3) if causal else np.ones((3, 3))

    def flow(w, frozen):
        x = np.ones((3, 2)) @ w["patch/kernel"]
        for n in range(layers):
            first, second = w[f"ln{n}a/gamma"], w[f"ln{n}b/gamma"]
            y = x * first if norm == "pre" else x
            x = x + frozen_flow.attend(w, frozen, f"mha{n}", y, y, sees=sees)
            x = x * first if norm == "post" else x
            y = x * second if norm == "pre" else x
            x = x + y @ w[f"up{n}/kernel"] @ w[f"down{n}/kernel"]
            x = x * second if norm == "post" else x
        return (x.mean(0) @ w["head/kernel"]).sum()

    return flow


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_transformer_blocks_score_what_removal_takes(keras, norm, causal):
    whole, scores = compare(block(keras, norm, causal), block_flow(norm, causal))
    for name in ("patch/kernel", "head/kernel"):
        assert scores[name].sum() == pytest.approx(whole, rel=1e-14)
    for n in range(2):
        parts = ("query", "key", "value", "attention_output")
        q, k, v, o = (scores[f"mha{n}/{part}/kernel"] for part in parts)
        heads = o.sum((1, 2))
        for own in (q, k, v):  # by head
            np.testing.assert_allclose(own.sum((0, 2)), heads, rtol=1e-13, atol=0)
        np.testing.assert_allclose(q.sum(0), k.sum(0), rtol=1e-13)  # by unit
        np.testing.assert_allclose(v.sum(0), o.sum(2), rtol=1e-13)
        assert 0 < heads.sum() < whole  # the rest skips
        up, down = scores[f"up{n}/kernel"].sum(), scores[f"down{n}/kernel"].sum()
        assert up == pytest.approx(down, rel=1e-13)


@pytest.mark.parametrize("causal", [False, True])
def test_every_path_one_by_one(keras, causal):
    inputs = keras.Input((2, 2))
    attention = keras.layers.MultiHeadAttention(2, 2, value_dim=1, name="mha")
    x = keras.layers.Dense(2, name="in")(inputs)
    x = attention(x, x, use_causal_mask=causal)
    x = keras.layers.Flatten()(x)
    model = randomise(keras.Model(inputs, keras.layers.Dense(2, name="out")(x)))
    scores, values = scored(model)
    w = {name: np.abs(value.astype("float64")) for name, value in values.items()}

    def into(token, i):
        return [(w["in/kernel"][a, i], (("in/kernel", (a, i)),)) for a in range(2)]

    sees = np.tri(2) if causal else np.ones((2, 2))
    tokens = np.ones((2, 2)) @ w["in/kernel"]
    through = frozen_flow.paths(w, "mha", tokens, into, sees)
    found = [
        (product * w["out/kernel"][2 * t + e, o], used + (("out/kernel", place),))
        for t in range(2)
        for e in range(2)
        for o in range(2)
        for place in [(2 * t + e, o)]
        for product, used in through(t, e)
    ]
    whole, expected = frozen_flow.scores_of(found, {n: w[n] for n in scores})
    assert len(found) > 700
    for name, score in scores.items():
        assert np.abs(score - expected[name]).max() <= 1e-14 * whole, name


def test_cross_attention_with_three_inputs_and_other_sizes(keras):
    layer = keras.layers
    inputs = [keras.Input(s) for s in ((2, 3), (4, 2), (4, 3))]
    embedded = [layer.Dense(3, name=n)(x) for n, x in zip("qvk", inputs, strict=True)]
    mha = layer.MultiHeadAttention(2, 2, value_dim=3, output_shape=5, name="mha")
    out = layer.Dense(2, name="head")(mha(*embedded))
    model = randomise(keras.Model(inputs, out))

    def flow(w, frozen):
        query, value, key = (
            np.ones(shape) @ w[f"{n}/kernel"]
            for n, shape in zip("qvk", ((2, 3), (4, 2), (4, 3)), strict=True)
        )
        y = frozen_flow.attend(w, frozen, "mha", query, value, key)
        return (y @ w["head/kernel"]).sum()

    whole, scores = compare(model, flow)
    for part in ("query", "key", "value", "attention_output"):
        assert scores[f"mha/{part}/kernel"].sum() == pytest.approx(whole, rel=1e-13)
    # Query and key are looked at with their signals frozen: no flow goes on upstream.
    assert not scores["q/kernel"].any() and not scores["k/kernel"].any()


def test_several_attention_axes_and_a_constant_mask(keras):
    layer = keras.layers
    inputs = keras.Input((2, 3, 2))
    x = layer.Dense(3, name="in")(inputs)
    both = layer.MultiHeadAttention(2, 2, attention_axes=(1, 2), name="both")(x, x)
    one = layer.MultiHeadAttention(2, 2, attention_axes=(2,), name="one")(both, both)
    flat = layer.Reshape((6, 3))(one)
    sees = np.random.default_rng(3).random((1, 6, 6)) < 0.5
    sees[0, 2] = False  # a token that sees nobody attends to all
    last = layer.MultiHeadAttention(1, 2, name="last")
    out = layer.Dense(2, name="head")(last(flat, flat, attention_mask=sees))
    model = randomise(keras.Model(inputs, out))

    def flow(w, frozen):
        x = np.ones((2, 3, 2)) @ w["in/kernel"]
        x = frozen_flow.attend(w, frozen, "both", x, x, axes=(0, 1))
        x = frozen_flow.attend(w, frozen, "one", x, x, axes=(1,)).reshape(6, 3)
        seen = np.where(np.arange(6)[:, None] == 2, 1.0, sees[0])
        return (
            frozen_flow.attend(w, frozen, "last", x, x, sees=seen) @ w["head/kernel"]
        ).sum()

    compare(model, flow)


def test_a_mask_that_depends_on_the_input_hides_nothing(keras):
    layer = keras.layers
    inputs, mask = keras.Input((3, 2)), keras.Input((3, 3), dtype="bool")
    y = layer.MultiHeadAttention(1, 2, name="mha")(inputs, inputs, attention_mask=mask)
    model = randomise(keras.Model([inputs, mask], layer.Dense(2, name="head")(y)))

    def flow(w, frozen):
        x = np.ones((3, 2))
        y = frozen_flow.attend(w, frozen, "mha", x, x)
        return (y @ w["head/kernel"]).sum()

    compare(model, flow)


def test_masks_given_by_position_hide_nothing(keras):
    layer = keras.layers
    inputs, mask = keras.Input((3, 2)), keras.Input((3, 2), dtype="bool")
    tokens = keras.Input((3, 3), dtype="bool")
    x = layer.Softmax()(layer.Dense(2, name="in")(inputs), mask)
    mha = layer.MultiHeadAttention(1, 2, name="mha")
    # Keras 3 itself does not take the mask of this layer by position.
    y = mha(x, x, None, tokens) if keras is keras2 else mha(x, x, attention_mask=tokens)
    out = layer.Dense(2, name="head")(y)
    model = randomise(keras.Model([inputs, mask, tokens], out))
    plain = keras.Model([inputs, mask], layer.Dense(2, name="own")(mha(x, x)))
    plain.layers[-1].set_weights(model.layers[-1].get_weights())
    scores = tf_synflow.PruningPolicy().score(model)
    others = tf_synflow.PruningPolicy().score(plain)
    assert len(scores) == len(others) == 6
    for score, other in zip(scores.values(), others.values(), strict=True):
        assert score.any()
        np.testing.assert_allclose(score, other, rtol=1e-13)


def test_attention_without_weights_passes_the_values_on(keras):
    layer = keras.layers
    inputs = [keras.Input((2, 3)), keras.Input((4, 3))]
    a, b = (layer.Dense(3, name=n)(x) for n, x in zip(("q", "v"), inputs, strict=True))
    y = layer.Add()([layer.Attention()([a, b]), layer.AdditiveAttention()([a, b])])
    model = randomise(keras.Model(inputs, layer.Dense(2, name="head")(y)))

    def flow(w, frozen):
        value = (np.ones((4, 3)) @ w["v/kernel"]).mean(0)
        return 2 * (2 * value @ w["head/kernel"]).sum()

    whole, scores = compare(model, flow)
    assert scores["v/kernel"].sum() == pytest.approx(whole, rel=1e-13)
    assert not scores["q/kernel"].any()


def test_grouped_queries_and_gates_of_keras_3():
    layer = keras3.layers
    inputs = keras3.Input((3, 4))
    x = layer.RMSNormalization(name="rms")(inputs)
    x = layer.GroupQueryAttention(2, 4, 2, name="gqa")(x, x)
    x = layer.MultiHeadAttention(2, 2, use_gate=True, name="gated")(x, x)
    model = keras3.Model(inputs, layer.Dense(2, name="head")(x))
    model = randomise(model)

    def flow(w, frozen):
        x = np.ones((3, 4)) * w["rms/scale"]
        x = frozen_flow.attend(w, frozen, "gqa", x, x)
        x = frozen_flow.attend(w, frozen, "gated", x, x)
        return (x @ w["head/kernel"]).sum()

    compare(model, flow)


def test_the_same_scores_in_both_kerases():
    one, other = (block(keras, "pre", True) for keras in (keras2, keras3))
    for a, b in zip(one.weights, other.weights, strict=True):
        b.assign(a.numpy())
    first, second = POLICY.score(one), POLICY.score(other)
    assert list(first) == list(second)
    for name, score in first.items():
        np.testing.assert_array_equal(score, second[name])


def test_a_share_of_nothing_leaves_the_values(keras):
    model = block(keras, "pre", False, layers=1)
    scores = POLICY.score(model)
    masks = {name: np.ones(score.shape, bool) for name, score in scores.items()}
    masks["mha0/query/kernel"][:, 0] = False  # no query weight of head 0
    masks["mha0/key/kernel"][:, 1, 0] = False  # one key unit of head 1
    left = POLICY.score(tf_synflow.apply_masks(model, masks))
    assert all(np.isfinite(score).all() for score in left.values())
    for part in ("value", "attention_output"):
        axis = 1 if part == "value" else 0
        kept, before = (s[f"mha0/{part}/kernel"] for s in (left, scores))
        assert np.take(kept, 0, axis).min() > 0
        np.testing.assert_allclose(kept, before, rtol=1e-13)  # the flow is the same
    assert not left["mha0/key/kernel"][:, 0].any()  # its queries are gone
    assert not left["mha0/query/kernel"][:, 1, 0].any()  # its key unit is gone
    assert left["mha0/query/kernel"][:, 1, 1].min() > 0
    report = tf_synflow.report(tf_synflow.apply_masks(model, masks))
    assert report.totals["connected"]
    rows = {row["name"]: row for row in report.layers}
    assert rows["mha0/key/kernel"]["effective"] == 4  # of head 1's other unit
    assert rows["mha0/value/kernel"]["effective"] == 4 * 2 * 3


class ClassToken(keras2.layers.Layer):
    """A learned token before the others."""

    def build(self, shape):
        self.token = self.add_weight("token", (1, 1, shape[-1]), trainable=True)

    def call(self, x):
        from tensorflow import concat, repeat, shape

        return concat([repeat(self.token, shape(x)[0], 0), x], 1)


def test_a_network_with_a_class_token_stays_connected_at_ratio_100():
    import tensorflow as tf

    # The two lines that the documentation tells.
    def in_the_twin(layer, x, w):
        return tf.pad(x, [[0, 0], [1, 0], [0, 0]])

    tf_synflow.register_linear_part(ClassToken, in_the_twin)

    layer = keras2.layers
    inputs = keras2.Input((16, 4))
    x = ClassToken(name="cls")(layer.Dense(32, name="patch")(inputs))
    for n in range(2):
        y = layer.LayerNormalization()(x)
        mha = layer.MultiHeadAttention(4, 8, name=f"mha{n}")
        x = layer.Add()([x, mha(y, y)])
        y = layer.Dense(64, "gelu", name=f"up{n}")(layer.LayerNormalization()(x))
        x = layer.Add()([x, layer.Dense(32, name=f"down{n}")(y)])
    out = layer.Dense(10, name="head")(layer.LayerNormalization()(x)[:, 0])
    model = keras2.Model(inputs, out)
    masks = POLICY.masks(model, 100)
    report = tf_synflow.report(tf_synflow.apply_masks(model, masks))
    size = sum(mask.size for mask in masks.values())
    assert sum(mask.sum() for mask in masks.values()) == size - int(0.99 * size)
    assert report.totals["connected"]
    assert report.totals["effective"] >= 0.98 * report.totals["prunable"]["kept"]


def deep(blocks):
    """Blocks of attention beside their skips, with a flow beyond any float64."""
    layer = keras3.layers
    inputs = keras3.Input((2, 2))
    x = layer.Dense(2, name="patch")(inputs)
    for n in range(blocks):
        mha = layer.MultiHeadAttention(1, 2, use_bias=False, name=f"mha{n}")
        x = layer.Add()([x, mha(x, x)])
    model = keras3.Model(inputs, layer.Dense(2, name="head")(x))
    generator = np.random.default_rng(0)
    for weight in model.weights:
        if "kernel" in weight.path:
            weight.assign((generator.random(weight.shape) + 0.1) * 10)
    return model


def times_two_to_the_60(model, blocks):
    """Multiplies the weights of layers that all of the flow passes, or its shares."""
    model.get_layer("patch").kernel.assign(model.get_layer("patch").kernel * 2.0**60)
    for number, part, power in (
        (1, "query", 60),
        (blocks // 2, "key", 60),
        (blocks - 1, "value", 60),
        (blocks - 1, "output", -60),  # or the branch would outweigh what skips it
    ):
        kernel = getattr(model.get_layer(f"mha{number}"), f"{part}_dense").kernel
        kernel.assign(kernel.numpy() * 2.0**power)


def test_two_hundred_blocks_and_a_layer_times_two_to_the_60():
    model = deep(200)
    scores = POLICY.score(model)
    assert scores.log2_scale > 1024
    assert all(np.isfinite(s).all() and s.min() > 0 for s in scores.values())
    times_two_to_the_60(model, 200)
    after = POLICY.score(model)
    (power,) = {float(after[n].flat[0] / scores[n].flat[0]) for n in scores}
    assert np.frexp(power)[0] == 0.5  # the same in every bit, but for one power of two
    for name, score in scores.items():
        np.testing.assert_array_equal(after[name], score * power, name)


def test_masks_do_not_see_that_a_layer_is_times_two_to_the_60():
    policy = tf_synflow.PruningPolicy(iterations=10, progress=False)
    model = deep(5)
    before = policy.masks(model, 4)
    times_two_to_the_60(model, 5)
    after = policy.masks(model, 4)
    for name, mask in before.items():
        np.testing.assert_array_equal(mask, after[name], name)


def test_the_product_of_queries_and_keys_is_exact_by_plain_removal(keras):
    """With "product" nothing is frozen but the signals at queries and keys."""
    model = block(keras, "pre", False, layers=1)
    values = scored(model)[1]
    scores = tf_synflow.PruningPolicy(attention="product", progress=False).score(model)
    others = {n: np.abs(v.astype("float64")) for n, v in values.items()}

    def flow(w, frozen):
        w = {**others, **w}
        x = np.ones((3, 2)) @ w["patch/kernel"]
        y = x * w["ln0a/gamma"]
        mean = frozen("mean", y.mean(0) / y.mean())
        q, k = (
            np.einsum("d,dhk->hk", mean, w[f"mha0/{part}/kernel"])
            for part in ("query", "key")
        )
        share = (q * k).sum(1) / np.sqrt(2)
        v = np.einsum("td,dhc->thc", y, w["mha0/value/kernel"]).mean(0) * share[:, None]
        x = x + np.einsum("hc,hce->e", v, w["mha0/attention_output/kernel"])
        x = x + (x * w["ln0b/gamma"]) @ w["up0/kernel"] @ w["down0/kernel"]
        return (x.mean(0) @ w["head/kernel"]).sum()

    whole, lost = frozen_flow.removal(flow, {n: values[n] for n in scores})
    for name, score in scores.items():
        assert np.abs(score - lost[name]).max() <= 1e-14 * whole, name
    policy = tf_synflow.PruningPolicy(attention="product", progress=False)
    masks = policy.masks(model, 4)
    assert masks["mha0/query/kernel"].any() and masks["mha0/key/kernel"].any()
