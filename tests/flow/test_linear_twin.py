import re

import numpy as np
import pytest
import tensorflow as tf
from nets import layers, randomise
from path_counting import Units

import tf_synflow
from tf_synflow.flow.linear_parts import rule_of
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.counts import kept_count


def scale_of(bn):
    return np.abs(bn.gamma.numpy().astype("float64")) / np.sqrt(
        bn.moving_variance.numpy().astype("float64") + bn.epsilon
    )


def dense_chain():
    inputs = keras.Input((5,))
    x = layers.Dense(4, activation="tanh", name="a")(inputs)
    x = layers.Dropout(0.5)(layers.LeakyReLU()(x))
    x = layers.Dense(6, activation="sigmoid", name="b")(x)
    model = keras.Model(inputs, layers.Dense(3, activation="softmax", name="c")(x))

    def oracle(u):
        return u.dense(
            u.dense(u.dense(u.input((5,)), "a/kernel"), "b/kernel"), "c/kernel"
        )

    return model, oracle


def residual():
    inputs = keras.Input((4, 4, 1))
    x = layers.Conv2D(2, 3, padding="same", activation="relu", name="a")(inputs)
    x = layers.BatchNormalization(name="bn")(x)
    y = layers.Conv2D(2, 1, name="b")(x)
    x = layers.ReLU()(layers.Add()([y, x]))
    x = layers.Conv2D(2, 2, strides=2, name="c")(x)
    model = keras.Model(inputs, layers.Dense(2, name="d")(layers.Flatten()(x)))

    def oracle(u):
        x = u.conv(u.input((4, 4, 1)), "a/kernel")
        x = u.scale(x, scale_of(model.get_layer("bn")))
        x = u.add(u.conv(x, "b/kernel"), x)
        x = u.conv(x, "c/kernel", stride=2, padding="valid")
        return u.dense(x.ravel(), "d/kernel")

    return model, oracle


def branches():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(2, 3, strides=2, padding="same", name="a")(inputs)
    y = layers.AveragePooling2D(2)(inputs)
    z = layers.MaxPooling2D(2)(layers.Conv2D(2, 1, name="b")(inputs))
    x = layers.Concatenate()([x, y, z])
    x = layers.GlobalAveragePooling2D()(x)
    model = keras.Model(inputs, layers.Dense(3, name="c")(x))

    def oracle(u):
        inputs = u.input((4, 4, 2))
        x = u.conv(inputs, "a/kernel", stride=2)
        z = u.max_pool(u.conv(inputs, "b/kernel"), 2)
        x = np.concatenate([x, u.average_pool(inputs, 2), z], axis=-1)
        return u.dense(u.average_pool(x, 2).ravel(), "c/kernel")

    return model, oracle


def shared_and_nested():
    shared = layers.Dense(3, name="shared")
    inner = keras.Sequential(
        [layers.Dense(3, name="d", input_shape=(3,)), layers.ReLU()], name="inner"
    )
    left, right = keras.Input((3,)), keras.Input((3,))
    x = layers.Add()([shared(left), inner(shared(shared(right)))])
    outputs = [layers.Dense(2, name="out1")(x), layers.Dense(1, name="out2")(x)]
    model = keras.Model([left, right], outputs)

    def oracle(u):
        def shared(x):
            return u.dense(x, "shared/kernel")

        left, right = u.input((3,)), u.input((3,))
        x = u.add(shared(left), u.dense(shared(shared(right)), "inner/d/kernel"))
        return np.concatenate([u.dense(x, "out1/kernel"), u.dense(x, "out2/kernel")])

    return model, oracle


NETS = [dense_chain, residual, branches, shared_and_nested]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("net", NETS)
def test_scores_are_the_sums_over_all_paths(net, seed):
    model, oracle = net()
    randomise(model, seed)
    scores = tf_synflow.PruningPolicy().score(model)
    weights = {name: kernel(model, name) for name in scores}
    units = Units(weights)
    expected = units.scores(oracle(units))
    for name, score in scores.items():
        assert score.dtype == np.float64
        np.testing.assert_allclose(score, expected[name], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize("net", NETS)
def test_masks_are_those_of_the_brute_force(net):
    model, oracle = net()
    randomise(model, seed=7)
    masks = tf_synflow.PruningPolicy(iterations=4).masks(model, 3)
    weights = {name: kernel(model, name).astype("float64") for name in masks}
    kept = {name: np.ones(w.shape, bool) for name, w in weights.items()}
    size = sum(w.size for w in weights.values())
    for k in (1, 2, 3, 4):
        count = size - int((1 - 3 ** (-k / 4)) * size)
        units = Units({name: w * kept[name] for name, w in weights.items()})
        scores = units.scores(oracle(units))
        ranked = sorted(
            (-scores[name][index], position, name, index)
            for position, (name, index) in enumerate(
                (n, i) for n in scores for i in np.ndindex(scores[n].shape)
            )
            if kept[name][index]
        )
        for *_, name, index in ranked[count:]:
            kept[name][index] = False
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, kept[name])


def kernel(model, name):
    *nested, layer, _ = name.split("/")
    for part in nested:
        model = model.get_layer(part)
    return model.get_layer(layer).kernel.numpy()


LINEAR_LAYERS = [
    ((6, 4), lambda: layers.Conv1D(4, 3, padding="causal", dilation_rate=2)),
    ((6, 4), lambda: layers.Conv1D(4, 3, strides=2, groups=2)),
    ((6, 6, 4), lambda: layers.Conv2D(6, 3, padding="same", groups=2)),
    ((7, 7, 2), lambda: layers.Conv2D(3, 3, dilation_rate=2)),
    ((7, 7, 2), lambda: layers.Conv2D(3, 3, dilation_rate=2, padding="same")),
    ((4, 4, 4, 2), lambda: layers.Conv3D(3, 3, padding="same", strides=2)),
    ((5, 5, 2), lambda: layers.Conv2DTranspose(3, 3, strides=2)),
    ((5, 5, 2), lambda: layers.Conv2DTranspose(3, 3, strides=2, padding="same")),
    ((5, 2), lambda: layers.Conv1DTranspose(3, 3, strides=2)),
    ((3, 3, 3, 2), lambda: layers.Conv3DTranspose(2, 2, strides=2)),
    ((6, 6, 2), lambda: layers.DepthwiseConv2D(3, strides=2, depth_multiplier=2)),
    ((6, 6, 2), lambda: layers.DepthwiseConv2D(3, dilation_rate=2, padding="same")),
    ((8, 2), lambda: layers.DepthwiseConv1D(3, strides=2)),
    ((6, 6, 2), lambda: layers.SeparableConv2D(3, 3, strides=2, padding="same")),
    ((8, 2), lambda: layers.SeparableConv1D(3, 3, padding="causal")),
    ((4, 3), lambda: layers.Dense(5)),
    ((6, 6, 2), lambda: layers.AveragePooling2D(3, 2, padding="same")),
    ((6, 6, 2), lambda: layers.MaxPooling2D(3, 2, padding="same")),
    ((7, 7, 2), lambda: layers.AveragePooling2D(2, 3, padding="same")),
    ((7, 7, 2), lambda: layers.MaxPooling2D(1, 2)),
    ((6, 2), lambda: layers.AveragePooling1D(2)),
    ((6, 2), lambda: layers.MaxPooling1D(3, padding="same")),
    ((4, 4, 4, 2), lambda: layers.MaxPooling3D((2, 3, 3), (2, 1, 1), padding="same")),
    ((4, 4, 4, 2), lambda: layers.AveragePooling3D(2)),
    ((4, 4, 2), lambda: layers.GlobalMaxPooling2D()),
    ((4, 2), lambda: layers.GlobalAveragePooling1D()),
    ((4, 4, 2), lambda: layers.ZeroPadding2D(((0, 1), (2, 3)))),
    ((4, 4, 2), lambda: layers.Cropping2D(1)),
    ((4, 4, 2), lambda: layers.UpSampling2D(2)),
    ((5, 5, 2), lambda: layers.Conv2DTranspose(3, 3, dilation_rate=2, padding="same")),
    ((5, 5, 2), lambda: layers.Conv2DTranspose(3, 3, dilation_rate=3)),
    ((5, 2), lambda: layers.Conv1DTranspose(3, 3, dilation_rate=2)),
    ((4, 4, 2), lambda: layers.Reshape((8, 4))),
    ((4, 6), lambda: layers.Permute((2, 1))),
    ((6,), lambda: layers.RepeatVector(3)),
    ((4, 4, 2), lambda: layers.BatchNormalization(axis=1)),
    ((4, 4, 2), lambda: layers.BatchNormalization(scale=False)),
    ((4, 4, 2), lambda: layers.BatchNormalization(axis=[1, 3])),
    ((4, 3), lambda: layers.Rescaling(0.25)),
    ((4, 3), lambda: layers.Rescaling([0.5, 2.0, 3.0])),
    ((4, 3), lambda: layers.Normalization(mean=[0, 0, 0], variance=[4, 1, 9])),
]


@pytest.mark.parametrize(("shape", "make"), LINEAR_LAYERS)
def test_the_twin_of_a_positive_linear_layer_is_the_layer(shape, make):
    """On positive weights, without offsets, Keras's own forward pass is the oracle.

    By Euler's theorem the scores of a layer that every path crosses add up to the flow;
    so the flow is read off the layers before and after.
    """
    model = positive(shape, make)
    scores = tf_synflow.PruningPolicy().score(model)
    expected = forward(model, np.ones((1, *shape), "float32")).sum()
    np.testing.assert_allclose(scores["before/kernel"].sum(), expected, rtol=1e-5)
    np.testing.assert_allclose(scores["after/kernel"].sum(), expected, rtol=1e-5)


@pytest.mark.parametrize(("shape", "make"), LINEAR_LAYERS)
def test_the_rule_of_a_positive_linear_layer_is_the_layer_wherever_it_looks(
    shape, make
):
    """On ones hardly any position differs from another; on random numbers all do."""
    model = positive(shape, make)
    x = np.random.default_rng(0).random((1, *shape), "float32")
    call = read(model).calls[1]
    weights = {short: tf.abs(variable) for short, variable in call.weights.items()}
    y = rule_of(call)(call.layer, model.get_layer("before")(x), weights)
    found = model.get_layer("after")(y).numpy()
    np.testing.assert_allclose(found, forward(model, x), rtol=1e-5)


def positive(shape, make):
    """A model of a layer between two Dense ones, with weights > 0 and no offsets."""
    inputs = keras.Input(shape)
    x = layers.Dense(shape[-1], use_bias=False, name="before")(inputs)
    x = layers.Dense(2, use_bias=False, name="after")(make()(x))
    model = keras.Model(inputs, x)
    for variable in randomise(model).weights:
        value = np.abs(variable.numpy()) + 0.1
        offset = any(s in variable.name for s in ("bias", "beta", "moving_mean"))
        variable.assign(np.zeros_like(value) if offset else value)
    return model


def forward(model, x):
    """What Keras computes; dilated transposed layers through their dilated kernel.

    TensorFlow cannot run those on the CPU. A kernel with zeros between its taps is the
    same layer by definition.
    """
    layer = model.layers[2]
    dilated = any(rate > 1 for rate in getattr(layer, "dilation_rate", ()))
    if not (dilated and "Transpose" in type(layer).__name__):
        return model(x).numpy()
    config = layer.get_config()
    rates, kernel = config["dilation_rate"], layer.kernel.numpy()
    sizes = [(n - 1) * r + 1 for n, r in zip(kernel.shape, rates, strict=False)]
    spread = np.zeros((*sizes, *kernel.shape[len(rates) :]), "float32")
    spread[tuple(slice(None, None, rate) for rate in rates)] = kernel
    config |= {"dilation_rate": 1, "kernel_size": sizes}
    same = type(layer).from_config(config)
    hidden = model.get_layer("before")(x)
    same.build(hidden.shape)
    same.kernel.assign(spread)
    return model.get_layer("after")(same(hidden)).numpy()


@pytest.mark.parametrize("make", [layers.Add, layers.Average])
def test_a_merge_of_one_signal_is_that_signal(make):
    inputs = keras.Input((3,))
    x = make()([layers.Dense(3, name="a")(inputs)])
    merged = keras.Model(inputs, layers.Dense(2, name="b")(x))
    inputs = keras.Input((3,))
    x = layers.Dense(3, name="a")(inputs)
    plain = keras.Model(inputs, layers.Dense(2, name="b")(x))
    plain.set_weights(merged.get_weights())
    policy = tf_synflow.PruningPolicy()
    expected = policy.score(plain)
    for name, score in policy.score(merged).items():
        np.testing.assert_array_equal(score, expected[name])


@pytest.mark.parametrize("interpolation", ["bicubic", "lanczos3", "gaussian"])
def test_interpolations_with_other_weights_are_refused(interpolation):
    inputs = keras.Input((4, 4, 2))
    x = layers.UpSampling2D(2, interpolation=interpolation, name="up")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="'up' .* has no known linear part"):
        tf_synflow.prune(model, 2)


LINEAR_OPERATORS = [
    lambda x: 3.0 * x,
    lambda x: x / 4.0,
    lambda x: x * np.float32([1, 2, 3, 4]),
    lambda x: x + x,
    lambda x: tf.add_n([x, x, x]),
    lambda x: tf.nn.relu(x),
    lambda x: tf.abs(x),
    lambda x: tf.reshape(x, (-1, 4, 3)),
    lambda x: tf.transpose(x, (0, 2, 1)),
    lambda x: tf.reduce_mean(x, 1),
    lambda x: tf.concat([x, 2.0 * x], -1),
    lambda x: x[:, 1:, ::2],
    lambda x: tf.squeeze(tf.expand_dims(x, 1), 1),
    lambda x: tf.pad(x, [[0, 0], [1, 1], [0, 0]]),
    lambda x: tf.split(x, 2, -1)[0],
]


@pytest.mark.filterwarnings("ignore:The following Variables")
@pytest.mark.parametrize("operator", LINEAR_OPERATORS)
def test_the_twin_of_a_linear_operator_is_the_operator(operator):
    inputs = keras.Input((3, 4))
    x = operator(layers.Dense(4, use_bias=False, name="before")(inputs))
    x = layers.Dense(2, use_bias=False, name="after")(x)
    model = keras.Model(inputs, x)
    for variable in randomise(model).weights:
        variable.assign(abs(variable) + 0.1)
    scores = tf_synflow.PruningPolicy().score(model)
    expected = model(np.ones((1, 3, 4), "float32")).numpy().sum()
    np.testing.assert_allclose(scores["before/kernel"].sum(), expected, rtol=1e-5)
    np.testing.assert_allclose(scores["after/kernel"].sum(), expected, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:The following Variables")
@pytest.mark.parametrize("offset", [lambda x: x + 7.0, lambda x: x - 0.5, lambda x: -x])
def test_offsets_and_signs_drop_out(offset):
    def net(change):
        inputs = keras.Input((3,))
        x = change(layers.Dense(4, name="a")(inputs))
        return randomise(keras.Model(inputs, layers.Dense(2, name="b")(x)))

    found = tf_synflow.PruningPolicy().score(net(offset))
    expected = tf_synflow.PruningPolicy().score(net(lambda x: x))
    for name, score in expected.items():
        np.testing.assert_allclose(found[name], score, rtol=1e-14)


@pytest.mark.filterwarnings("ignore:The following Variables")
@pytest.mark.parametrize("product", [layers.Multiply(), lambda pair: pair[0] * pair[1]])
def test_a_gate_is_a_parallel_branch(product):
    """Every path of gate and of main branch counts, and R is linear in each layer."""
    inputs = keras.Input((3,))
    main = layers.Dense(4, name="main")(inputs)
    squeezed = layers.Dense(2, name="squeeze")(main)
    gate = layers.Dense(4, "sigmoid", name="gate")(squeezed)
    x = layers.Dense(2, name="end")(product([main, gate]))
    model = randomise(keras.Model(inputs, x))
    names = [f"{name}/kernel" for name in ("main", "squeeze", "gate", "end")]
    units = Units({name: kernel(model, name) for name in names})
    through = units.dense(units.input((3,)), "main/kernel")
    gated = units.dense(units.dense(through, "squeeze/kernel"), "gate/kernel")
    expected = units.scores(units.dense(units.add(through, gated), "end/kernel"))
    for name, score in tf_synflow.PruningPolicy().score(model).items():
        np.testing.assert_allclose(score, expected[name], rtol=1e-12)


def test_layer_normalisation_multiplies_by_gamma():
    inputs = keras.Input((4,))
    x = layers.Dense(3, name="a")(inputs)
    x = layers.LayerNormalization(name="norm")(x)
    model = randomise(keras.Model(inputs, layers.Dense(2, name="b")(x)))
    first, second = (abs(kernel(model, f"{n}/kernel").astype("float64")) for n in "ab")
    gamma = abs(model.get_layer("norm").gamma.numpy().astype("float64"))
    scores = tf_synflow.PruningPolicy().score(model)
    expected = first * (gamma * second.sum(1))
    np.testing.assert_allclose(scores["a/kernel"], expected, rtol=1e-12)


@pytest.mark.filterwarnings("ignore:The following Variables")
@pytest.mark.parametrize(
    "operator",
    [
        lambda x: 1 / x,
        lambda x: tf.norm(x, axis=-1, keepdims=True),
        lambda x: x / tf.reduce_sum(x),
    ],
)
def test_other_operators_are_refused_by_name(operator):
    inputs = keras.Input((3,))
    x = operator(layers.Dense(3)(inputs))
    model = keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(ValueError, match="operator .* has no known linear part"):
        tf_synflow.prune(model, 2)


def test_a_network_with_gates_is_pruned_and_stays_connected():
    build = keras.applications.MobileNetV3Small
    model = build(input_shape=(64, 64, 3), weights=None, classes=10)
    pruned = tf_synflow.prune(model, 10, iterations=30, progress=False)
    totals = tf_synflow.report(pruned).totals
    size = totals["prunable"]["size"]
    assert totals["prunable"]["kept"] == kept_count(size, 10)
    assert totals["connected"] and not totals["emptied"]


def test_channels_first_is_the_same_network():
    def net(data_format, shape, axis):
        own = {"data_format": data_format}
        return keras.Sequential(
            [
                layers.Input(shape),
                layers.Conv2D(4, 3, padding="same", name="a", **own),
                layers.BatchNormalization(axis=axis, name="bn"),
                layers.MaxPooling2D(2, **own),
                layers.SeparableConv2D(3, 3, name="b", **own),
                layers.Conv2DTranspose(2, 2, strides=2, name="c", **own),
                layers.GlobalAveragePooling2D(**own),
                layers.Dense(2, name="d"),
            ]
        )

    last = randomise(net("channels_last", (8, 8, 3), -1))
    first = net("channels_first", (3, 8, 8), 1)
    first.set_weights(last.get_weights())
    policy = tf_synflow.PruningPolicy()
    expected, found = policy.score(last), policy.score(first)
    for name in expected:
        np.testing.assert_allclose(found[name], expected[name], rtol=1e-12)


def test_a_layer_without_a_linear_part_is_refused_by_name():
    inputs = keras.Input((4,))
    x = layers.Dot(axes=1, name="join")([layers.Dense(4)(inputs), inputs])
    model = keras.Model(inputs, layers.Dense(2)(x))
    message = r"'join' \(Dot\) has no known linear part.*_linear_part\(Dot, rule\)$"
    with pytest.raises(ValueError, match=message) as error:
        tf_synflow.prune(model, 2)
    assert "exclude" not in str(error.value)


class Doubling(layers.Layer):
    def call(self, x):
        return 2 * x


class MyDense(layers.Dense):
    """A subclass may compute anything, so Dense's rule does not hold for it."""


def net_with(layer):
    inputs = keras.Input((4,))
    x = layer(layers.Dense(4, name="a")(inputs))
    return keras.Model(inputs, layers.Dense(2, name="b")(x))


def test_the_ways_out_work_exclude_and_register():
    model = net_with(Doubling(name="twice"))
    plain = keras.Model(model.input, model.get_layer("b")(model.get_layer("a").output))
    with pytest.raises(
        ValueError, match=r"'twice' \(Doubling\) has no known linear part"
    ):
        tf_synflow.prune(model, 2)
    identity = tf_synflow.PruningPolicy(exclude=["twice"]).score(model)
    tf_synflow.register_linear_part(Doubling, lambda layer, x, weights: 2 * x)
    doubled = tf_synflow.PruningPolicy().score(model)
    for name, score in tf_synflow.PruningPolicy().score(plain).items():
        np.testing.assert_allclose(identity[name], score, rtol=1e-14)
        np.testing.assert_allclose(doubled[name], 2 * score, rtol=1e-14)


def test_an_unknown_layer_that_changes_the_shape_cannot_be_the_identity():
    model = net_with(MyDense(3, name="mine"))
    with pytest.raises(ValueError, match="cannot be taken for the identity"):
        tf_synflow.prune(model, 2, exclude=["mine"])


@pytest.mark.filterwarnings("ignore:The following Variables")
def test_one_error_names_all_unknown_layers_and_its_ways_out_work():
    class Same(layers.Layer):
        def call(self, x):
            return x

    class Both(layers.Layer):
        def call(self, inputs):
            return inputs[0] + inputs[1]

    class Half(layers.Layer):
        def call(self, x):
            return x[:, :2]

    def net(keep):
        inputs = keras.Input((4,))
        x = Same(name="one")(layers.Dense(4, name="a")(inputs))
        x = Same(name="two")(Both(name="both")([x, inputs]))
        x = keep(layers.Lambda(lambda x: 2 * x, name="fun")(x))
        x = Half(name="half")(x)
        return randomise(keras.Model(inputs, layers.Dense(2, name="b")(x)))

    model = net(lambda x: layers.Lambda(lambda x: x[:, :3], name="cut")(1 / x))
    with pytest.raises(ValueError) as error:
        tf_synflow.PruningPolicy().score(model)
    said = str(error.value)
    operator = model.layers[-4].name
    for name in ("one", "two", "both", "fun", "half", "cut", operator):
        assert f"'{name}'" in said
    # Excluding is offered where there is one input and one output of one shape.
    offered = re.findall(r"exclude=\[(.*?)\]", said)
    assert offered == ["'one', 'two'", "'fun'", f"'{operator}'"]
    assert "register_linear_part(YourLayer, rule)" in said
    assert "Write it as a layer: one of Keras" in said
    named = set(re.findall(r"register_linear_part\((\w+), rule\)", said))
    assert named == {"Same", "Both", "Half", "YourLayer"}

    tf_synflow.register_linear_part(Both, lambda layer, x, w: x[0] + x[1])
    tf_synflow.register_linear_part(Half, lambda layer, x, w: x[:, :2])
    model = net(lambda x: 1 / x)  # an operator without a rule
    operator = model.layers[-3].name
    exclude = ["one", "two", "fun", operator]
    found = tf_synflow.PruningPolicy(exclude=exclude).score(model)
    a, b = (np.abs(kernel(model, f"{n}/kernel").astype("float64")) for n in "ab")
    signal = a.sum(0) + 1
    ahead = np.array([*b.sum(1), 0, 0])
    np.testing.assert_allclose(found["a/kernel"], a * ahead, rtol=1e-12)
    np.testing.assert_allclose(found["b/kernel"], signal[:2, None] * b, rtol=1e-12)


def test_a_report_does_not_offer_what_it_cannot_do():
    class Odd(layers.Layer):
        def call(self, x):
            return 2 * x

    (note,) = tf_synflow.report(net_with(Odd(name="odd"))).notes
    assert "'odd' (Odd) has no known linear part" in note
    assert "register_linear_part(Odd, rule)" in note and "exclude" not in note


def encoder_and_decoder():
    inputs = keras.Input((5,), name="images")
    mean = layers.Dense(3, name="mean")(inputs)
    return inputs, mean, layers.Dense(5, name="decoder")(mean)


def with_added_losses():
    """As a VAE: losses of a second head, and of labels of any length."""
    inputs, mean, outputs = encoder_and_decoder()
    labels = keras.Input((None,), name="labels")
    spread = layers.Dense(3, name="spread")(inputs)
    model = keras.Model([inputs, labels], outputs)
    model.add_loss(tf.reduce_mean(tf.exp(spread) + tf.square(mean) - spread))
    model.add_loss(tf.reduce_mean(tf.square(labels)))
    model.add_metric(tf.reduce_max(tf.sqrt(spread)), name="largest")
    return model


@pytest.mark.filterwarnings("ignore:The following Variables")
def test_calls_that_lead_to_no_output_need_no_rule_and_get_no_flow():
    model = randomise(with_added_losses())
    inputs, _, outputs = encoder_and_decoder()
    plain = keras.Model(inputs, outputs)
    for name in ("mean", "decoder"):
        plain.get_layer(name).set_weights(model.get_layer(name).get_weights())
    expected = tf_synflow.PruningPolicy().score(plain)
    found = tf_synflow.PruningPolicy().score(model)
    assert not found.pop("spread/kernel").any()
    for name, score in expected.items():
        np.testing.assert_array_equal(found[name], score)
    # The weights of the second head go first: 15 of 45, then 5 of the plain 30.
    policy = tf_synflow.PruningPolicy(iterations=1)
    masks = policy.masks(model, 20 / 45)
    assert not masks.pop("spread/kernel").any()
    for name, mask in policy.masks(plain, 5 / 30).items():
        np.testing.assert_array_equal(masks[name], mask)


@pytest.mark.filterwarnings("ignore:The following Variables")
def test_the_report_of_a_model_with_added_losses_knows_its_paths():
    model = randomise(with_added_losses())
    kernel = model.get_layer("mean").kernel
    kernel.assign(kernel.numpy() * [1, 1, 0])  # feeds 2 of 3 units of the decoder
    found = tf_synflow.report(model)
    assert not [note for note in found.notes if "Paths" in note]
    rows = {row["name"]: row["effective"] for row in found.layers}
    assert rows == {"mean/kernel": 10, "spread/kernel": 0, "decoder/kernel": 10}
    assert found.totals["connected"]


def test_register_refuses_what_is_no_layer_or_no_rule():
    with pytest.raises(TypeError, match="must be a class of Keras layers"):
        tf_synflow.register_linear_part("Dense", lambda layer, x, w: x)
    with pytest.raises(TypeError, match="rule must be a function"):
        tf_synflow.register_linear_part(Doubling, None)


def test_an_excluded_layer_conducts_but_is_not_scored():
    model, _ = dense_chain()
    every = tf_synflow.PruningPolicy().score(model)
    some = tf_synflow.PruningPolicy(exclude=["b"]).score(model)
    assert list(some) == ["a/kernel", "c/kernel"]
    for name in some:
        np.testing.assert_allclose(some[name], every[name], rtol=1e-14)


def test_an_open_input_shape_is_refused():
    inputs = keras.Input((None, None, 3))
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 3)(inputs))
    with pytest.raises(ValueError, match="needs every size but the batch's"):
        tf_synflow.prune(keras.Model(inputs, layers.Dense(2)(x)), 2)
