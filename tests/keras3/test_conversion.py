"""Keras 3 models as models of Keras 2: same outputs, scores, losses; or refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import tf_synflow
from tf_synflow.frameworks import read
from tf_synflow.keras3.conversion import as_tf_keras, outputs_of

layers, ops = keras.layers, keras.ops

IMAGE, SERIES = (12, 12, 4), (9, 4)

# Layer (or operation), and the shape that it is tried on.
LAYERS = {
    "dense": (lambda: layers.Dense(3, "gelu"), SERIES),
    "dense hard_sigmoid": (lambda: layers.Dense(3, "hard_sigmoid"), SERIES),
    "dense hard_silu": (lambda: layers.Dense(3, "hard_silu"), SERIES),
    "dense silu": (lambda: layers.Dense(3, "silu"), SERIES),
    "dense softmax": (lambda: layers.Dense(3, "softmax"), SERIES),
    "conv1d": (lambda: layers.Conv1D(3, 3, padding="causal", dilation_rate=2), SERIES),
    "conv2d": (lambda: layers.Conv2D(4, 3, 2, groups=2, activation="elu"), IMAGE),
    "conv3d": (lambda: layers.Conv3D(3, 2), (4, 4, 4, 2)),
    "conv2d transpose": (lambda: layers.Conv2DTranspose(3, 3, 2, "same"), IMAGE),
    "conv1d transpose": (lambda: layers.Conv1DTranspose(3, 3, 2), SERIES),
    "depthwise": (lambda: layers.DepthwiseConv2D(3, depth_multiplier=2), IMAGE),
    "depthwise 1d": (lambda: layers.DepthwiseConv1D(3), SERIES),
    "each depthwise": (
        lambda: layers.TimeDistributed(layers.DepthwiseConv2D(3)),
        (3, 8, 8, 2),
    ),
    "separable": (lambda: layers.SeparableConv2D(5, 3), IMAGE),
    "separable 1d": (lambda: layers.SeparableConv1D(5, 3), SERIES),
    "batch norm": (lambda: layers.BatchNormalization(axis=1), IMAGE),
    "layer norm": (lambda: layers.LayerNormalization(), SERIES),
    "group norm": (lambda: layers.GroupNormalization(2), IMAGE),
    "unit norm": (lambda: layers.UnitNormalization(), SERIES),
    "leaky relu": (lambda: layers.LeakyReLU(0.3), SERIES),
    "relu": (lambda: layers.ReLU(6.0, 0.1, 0.2), SERIES),
    "prelu": (lambda: layers.PReLU(shared_axes=[1, 2]), IMAGE),
    "elu": (lambda: layers.ELU(0.5), SERIES),
    "softmax": (lambda: layers.Softmax(1), SERIES),
    "embedding": (lambda: layers.Embedding(7, 3), (5,)),
    "lstm": (lambda: layers.LSTM(3, return_sequences=True), SERIES),
    "gru": (lambda: layers.GRU(3), SERIES),
    "rnn": (lambda: layers.SimpleRNN(3), SERIES),
    "max pool": (lambda: layers.MaxPooling2D(3, 2, "same"), IMAGE),
    "average pool": (lambda: layers.AveragePooling1D(2), SERIES),
    "global pool": (lambda: layers.GlobalMaxPooling2D(keepdims=True), IMAGE),
    "up": (lambda: layers.UpSampling2D((2, 3), interpolation="bilinear"), IMAGE),
    "pad": (lambda: layers.ZeroPadding2D(((1, 0), (2, 1))), IMAGE),
    "crop": (lambda: layers.Cropping2D(2), IMAGE),
    "permute": (lambda: layers.Permute((2, 1)), SERIES),
    "reshape": (lambda: layers.Reshape((4, -1)), SERIES),
    "flatten": (lambda: layers.Flatten(), IMAGE),
    "repeat": (lambda: layers.RepeatVector(3), (4,)),
    "dropout": (lambda: layers.Dropout(0.5), SERIES),
    "noise": (lambda: layers.GaussianNoise(0.5), SERIES),
    "rescaling": (lambda: layers.Rescaling(0.5, -1.0), SERIES),
    "resizing": (lambda: layers.Resizing(6, 7), IMAGE),
    "center crop": (lambda: layers.CenterCrop(6, 7), IMAGE),
    "flip": (lambda: layers.RandomFlip(), IMAGE),
    "masking": (lambda: layers.Masking(0.0), SERIES),
    "operations": (lambda: lambda x: ops.relu(2 * x - 1)[:, 1:] ** 2, SERIES),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_computes_the_same_in_keras_2(name):
    make, shape = LAYERS[name]
    integers = name == "embedding"
    inputs = keras.Input(shape, dtype="int32" if integers else "float32")
    model = keras.Model(inputs, make()(inputs))
    generator = np.random.default_rng(0)
    for variable in model.weights:
        variable.assign(generator.random(variable.shape) + 0.1)
    x = generator.random((2, *shape)).astype("float32")
    x = generator.integers(0, 7, (2, *shape)) if integers else x
    converted = as_tf_keras(read(model))
    assert isinstance(converted, tf_keras.Model)
    (want,) = outputs_of(model, [x])
    np.testing.assert_allclose(converted(x, training=False), want, rtol=1e-5, atol=1e-5)


def test_a_depthwise_kernel_at_each_step_has_its_name_of_keras_2():
    """Its scores are found by that name."""
    inputs = keras.Input((3, 6, 6, 2))
    x = layers.TimeDistributed(layers.DepthwiseConv2D(3, name="depth"), name="each")(
        inputs
    )
    model = keras.Model(inputs, layers.Dense(2, name="head")(layers.Flatten()(x)))
    data = np.ones((4, 3, 6, 6, 2), "float32"), np.arange(4) % 2
    policy = tf_synflow.PruningPolicy("snip", progress=False)
    assert list(policy.score(model, data)) == ["head/kernel"]
    assert "each/depth/depthwise_kernel" in read(model).weights


def pair():
    """The same small classifier in both Kerases."""

    def build(k):
        inputs = k.Input((8, 8, 2), name="image")
        x = k.layers.Conv2D(6, 3, padding="same", name="conv")(inputs)
        x = k.layers.BatchNormalization(name="bn")(x)
        x = k.layers.ReLU(name="relu")(x)
        x = k.layers.DepthwiseConv2D(3, name="depth")(x)
        x = k.layers.GlobalAveragePooling2D(name="pool")(x)
        return k.Model(inputs, k.layers.Dense(4, activation="softmax", name="out")(x))

    new, old = build(keras), build(tf_keras)
    generator = np.random.default_rng(0)
    for variable in new.weights:
        value = generator.standard_normal(variable.shape)
        variable.assign(np.abs(value) + 0.1 if "variance" in variable.path else value)
    old.set_weights(new.get_weights())
    return new, old


GENERATOR = np.random.default_rng(3)
DATA = GENERATOR.random((30, 8, 8, 2)).astype("float32"), GENERATOR.integers(0, 4, 30)


@pytest.mark.parametrize(
    "criterion",
    [
        "snip",
        "grasp",
        "loss_preservation",
        "small_magnitude_loss_preservation",
        "gradient_norm_preservation",
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_scores_of_criteria_with_data_are_those_of_keras_2(criterion, training):
    new, old = pair()
    policy = tf_synflow.PruningPolicy(criterion, training=training)
    one, other = policy.score(new, DATA), policy.score(old, DATA)
    assert list(one) == list(other)
    for name in one:
        assert one[name].any()
        np.testing.assert_allclose(one[name], other[name], rtol=1e-12)


def squared(labels, outputs):
    return (tf.cast(labels, outputs.dtype) - outputs) ** 2


# The loss of Keras 3, and that of Keras 2.
LOSSES = {
    "name": ("sparse_categorical_crossentropy",) * 2,
    "object": (
        keras.losses.SparseCategoricalCrossentropy(),
        tf_keras.losses.SparseCategoricalCrossentropy(),
    ),
    "settings": (
        keras.losses.SparseCategoricalCrossentropy(ignore_class=2),
        tf_keras.losses.SparseCategoricalCrossentropy(ignore_class=2),
    ),
    "function of Keras": (
        keras.losses.sparse_categorical_crossentropy,
        tf_keras.losses.sparse_categorical_crossentropy,
    ),
    "own function": (squared, squared),
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("compiled", [False, True])
def test_losses_are_those_of_keras_2(name, compiled):
    new, old = pair()
    losses = LOSSES[name]
    if compiled:
        for model, loss in zip((new, old), losses, strict=True):
            model.compile("sgd", loss)
        losses = (None, None)
    one, other = (
        tf_synflow.PruningPolicy("snip", loss=loss).score(model, DATA)
        for model, loss in zip((new, old), losses, strict=True)
    )
    for weight in one:
        np.testing.assert_array_equal(one[weight], other[weight])


def test_several_outputs_with_weights_and_dictionaries():
    def build(k):
        a, b = k.Input((4,), name="a"), k.Input((4,), name="b")
        x = k.layers.Dense(6, activation="relu", name="d")(k.layers.Add()([a, b]))
        outputs = [k.layers.Dense(2, name=name)(x) for name in ("one", "two")]
        return k.Model([a, b], outputs)

    new, old = build(keras), build(tf_keras)
    old.set_weights(new.get_weights())
    for model in (new, old):
        model.compile("sgd", {"one": "mse", "two": "mae"}, loss_weights=[1.0, 3.0])
    generator = np.random.default_rng(0)
    x = {name: generator.random((9, 4)).astype("float32") for name in "ab"}
    y = {name: generator.random((9, 2)).astype("float32") for name in ("one", "two")}
    policy = tf_synflow.PruningPolicy("grasp", temperature=1)
    one, other = policy.score(new, (x, y)), policy.score(old, (x, y))
    for weight in one:
        np.testing.assert_array_equal(one[weight], other[weight])


@keras.saving.register_keras_serializable("test_conversion")
class Mine(layers.Layer):
    def call(self, x):
        return 2 * x


@keras.saving.register_keras_serializable("test_conversion")
def twice(x):
    return 2 * x


class OwnLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean(y_pred, -1)


@pytest.mark.filterwarnings("ignore:You passed `rms_scaling=True`")
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: Mine(name="mine"),
            "layer 'mine' .Mine. cannot be made in Keras 2",
        ),
        (
            lambda: layers.LayerNormalization(rms_scaling=True),
            "rms_scaling=True, which does not exist in Keras 2",
        ),
        (
            lambda: layers.Dense(4, activation=twice, name="d"),
            "layer 'd' .Dense. has the activation twice",
        ),
        (lambda: lambda x: ops.cumprod(x, 1), r"'cumprod\w*' .keras.ops.cumprod."),
    ],
)
def test_what_cannot_be_converted_is_refused_by_name(make, words):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, layers.Dense(4)(make()(inputs)))
    data = np.ones((3, 4), "float32"), np.zeros(3, int)
    with pytest.raises(ValueError, match=words):
        tf_synflow.prune(model, 2, criterion="snip", data=data)
    tf_synflow.prune(model, 2, criterion="magnitude")


def test_a_loss_class_of_ones_own_is_refused():
    new, _ = pair()
    new.compile("sgd", OwnLoss())
    with pytest.raises(ValueError, match="OwnLoss is a class of your own for Keras 3"):
        tf_synflow.prune(new, 2, criterion="snip", data=DATA)


def test_a_sequential_model_is_scored_with_data():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="d")])
    data = np.ones((3, 4), "float32"), np.zeros(3, int)
    scores = tf_synflow.PruningPolicy("snip").score(model, data)
    assert scores["d/kernel"].any()


def test_a_mixture_of_both_kerases_is_explained():
    new, old = pair()
    one, other = (
        tf_synflow.PruningPolicy("snip", loss=loss).score(new, DATA)
        for loss in LOSSES["object"]
    )
    for name in one:  # a loss of Keras 2 will do
        np.testing.assert_array_equal(one[name], other[name])
    policy = tf_synflow.PruningPolicy("snip", loss=LOSSES["object"][0])
    with pytest.raises(
        TypeError, match="is a loss of Keras 3, and the model is one of"
    ):
        policy.score(old, DATA)
    for model, types in ((new, tf_keras.layers), (old, layers)):
        with pytest.raises(ValueError, match="Dense is of the other Keras"):
            tf_synflow.prune(model, 2, layer_types=[types.Dense])


def test_masks_that_the_user_gives_count():
    def build(explicit):
        inputs = keras.Input((6,), dtype="int32")
        x = layers.Embedding(10, 8, mask_zero=not explicit)(inputs)
        given = {"mask": ops.not_equal(inputs, 0)} if explicit else {}
        x = layers.Dense(5, "relu")(layers.LSTM(8)(x, **given))
        return keras.Model(inputs, layers.Dense(3, activation="softmax")(x))

    explicit, carried = build(True), build(False)
    carried.set_weights(explicit.get_weights())
    data = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 0, 0]]), np.array([0, 1])
    (want,) = outputs_of(explicit, [data[0]])
    for model in (explicit, carried):
        found = as_tf_keras(read(model))(data[0], training=False)
        np.testing.assert_allclose(found, want, rtol=1e-5, atol=1e-6)
    one, other = (
        tf_synflow.PruningPolicy("snip").score(model, data).values()
        for model in (explicit, carried)
    )
    for scores, others in zip(one, other, strict=True):
        np.testing.assert_allclose(scores, others, rtol=1e-9)


def test_causal_attention_and_activations_are_scored_with_data():
    inputs = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4)(inputs, inputs, use_causal_mask=True)
    x = layers.Dense(5, activation="leaky_relu")(layers.Flatten()(x))
    x = layers.Dense(5, activation="hard_sigmoid")(x)
    model = keras.Model(inputs, layers.Dense(3)(x))
    data = GENERATOR.random((4, 6, 8)).astype("float32"), np.arange(4) % 3
    scores = tf_synflow.PruningPolicy("grasp").score(model, data)
    assert len(scores) == 7 and all(score.any() for score in scores.values())


def test_layers_that_hold_one_layer_are_scored_with_data():
    inputs = keras.Input((6, 8))
    x = layers.TimeDistributed(layers.Dense(4, "tanh", name="dense"), name="each")(
        inputs
    )
    both = layers.Bidirectional(layers.LSTM(3, name="lstm"), "sum", name="both")
    model = keras.Model(inputs, layers.Dense(3, name="head")(both(x)))
    data = GENERATOR.random((4, 6, 8)).astype("float32"), np.arange(4) % 3
    scores = tf_synflow.PruningPolicy("snip").score(model, data)
    assert list(scores) == list(tf_synflow.PruningPolicy("magnitude").score(model))
    assert len(scores) == 6 and all(score.any() for score in scores.values())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda: layers.Bidirectional(
                layers.LSTM(3), backward_layer=layers.GRU(3, go_backwards=True)
            ),
            "has a backward layer of its own",
        ),
        (
            lambda: layers.Lambda(lambda x: 2 * x, output_shape=(6, 8)),
            "'lambda\\w*' .Lambda. cannot be made in Keras 2",
        ),
    ],
)
def test_layers_that_hold_something_are_refused_by_name(make, words):
    inputs = keras.Input((6, 8))
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(make()(inputs))))
    data = np.ones((4, 6, 8), "float32"), np.zeros(4, int)
    with pytest.raises(ValueError, match=words):
        tf_synflow.prune(model, 2, criterion="snip", data=data)


def test_settings_of_a_loss_are_not_passed_over():
    new, _ = pair()
    loss = keras.losses.SparseCategoricalCrossentropy(axis=1)
    with pytest.raises(ValueError, match="has axis=1, which Keras 2 does not support"):
        tf_synflow.PruningPolicy("snip", loss=loss).score(new, DATA)
