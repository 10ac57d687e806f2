"""The criteria that need data, against numpy, differences and plain tapes."""

from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from nets import images, layers, randomise, residual_net

import tf_synflow
from tf_synflow.criteria import CRITERIA, DATA_FREE
from tf_synflow.criteria.gradients.derivatives import Derivatives
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.counts import kept_count
from tf_synflow.masks.selection import flat

WITH_DATA = [name for name in CRITERIA if name not in DATA_FREE]
SECOND_ORDER = ["grasp", "gradient_norm_preservation"]
TEMPERATURES = {
    "snip": 1,
    "grasp": 200,
    "loss_preservation": 5,
    "small_magnitude_loss_preservation": 5,
    "gradient_norm_preservation": 1,
}


def scores_of(criterion, model, data, **settings):
    policy = tf_synflow.PruningPolicy(criterion, progress=False, **settings)
    return policy.score(model, data)


def double(model):
    """The same network and weights, in float64."""
    keras.mixed_precision.set_global_policy("float64")
    try:
        new = residual_net()
    finally:
        keras.mixed_precision.set_global_policy("float32")
    for a, b in zip(new.weights, model.weights, strict=True):
        a.assign(b.numpy())
    return new


def kernels_of(model):
    weights = read(model).weights
    ends = ("kernel", "embeddings")
    return {name: v for name, v in weights.items() if name.endswith(ends)}


def loss_in_numpy(model, x, y, temperature):
    logits = model(x.astype("float64")).numpy() / temperature
    logits -= logits.max(-1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    return -log_p[np.arange(len(y)), y].mean()


def tape_gradients(model, x, y, temperature, training=False):
    kernels = list(kernels_of(model).values())
    with tf.GradientTape() as tape:
        logits = model(x.astype("float64"), training=training) / temperature
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits)
        loss = tf.reduce_mean(losses)
    return [gradient.numpy() for gradient in tape.gradient(loss, kernels)]


def differences_of_loss(model, x, y, temperature, step=1e-6):
    """g by central differences of the loss, weight by weight."""
    gradients = {}
    for name, kernel in kernels_of(model).items():
        value = kernel.numpy()
        gradient = gradients[name] = np.empty_like(value)
        for index in np.ndindex(value.shape):
            sides = []
            for sign in (1, -1):
                moved = value.copy()
                moved[index] += sign * step
                kernel.assign(moved)
                sides.append(loss_in_numpy(model, x, y, temperature))
            gradient[index] = (sides[0] - sides[1]) / (2 * step)
        kernel.assign(value)
    return gradients


def differences_of_gradient(model, x, y, temperature, step=1e-5):
    """Hg by central differences of the gradient along the gradient."""
    kernels = kernels_of(model)
    start = [kernel.numpy() for kernel in kernels.values()]
    directions = tape_gradients(model, x, y, temperature)
    length = np.sqrt(sum((d**2).sum() for d in directions))
    sides = []
    for sign in (1, -1):
        for kernel, value, d in zip(kernels.values(), start, directions, strict=True):
            kernel.assign(value + sign * step * d / length)
        sides.append(tape_gradients(model, x, y, temperature))
    for kernel, value in zip(kernels.values(), start, strict=True):
        kernel.assign(value)
    products = [(a - b) / (2 * step) * length for a, b in zip(*sides, strict=True)]
    return dict(zip(kernels, products, strict=True))


FORMULAS = {
    "snip": lambda w, d: np.abs(w * d),
    "grasp": lambda w, d: w * d,
    "loss_preservation": lambda w, d: np.abs(w * d),
    "small_magnitude_loss_preservation": lambda w, d: np.abs(w) * np.abs(w * d),
    "gradient_norm_preservation": lambda w, d: np.abs(w * d),
}


@pytest.mark.parametrize("criterion", WITH_DATA)
def test_scores_against_central_differences(criterion):
    model = randomise(residual_net())
    x, y = images(model, 12)
    found = flat(scores_of(criterion, model, (x, y)))
    second = criterion in SECOND_ORDER
    differences = differences_of_gradient if second else differences_of_loss
    derivatives = differences(double(model), x, y, TEMPERATURES[criterion])
    weights = {n: v.numpy().astype("float64") for n, v in kernels_of(model).items()}
    expected = flat(
        {n: FORMULAS[criterion](w, derivatives[n]) for n, w in weights.items()}
    )
    expected /= abs(expected.sum())
    top = np.abs(expected).max()
    tolerance = 1e-5 if second else 1e-6
    np.testing.assert_allclose(found / top, expected / top, rtol=0, atol=tolerance)


@pytest.mark.parametrize("criterion", WITH_DATA)
def test_several_batches_are_as_good_as_one(criterion):
    model = randomise(residual_net())
    x, y = images(model, 50)
    whole = flat(scores_of(criterion, model, (x, y)))
    for size in (1, 7, 50):
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(size)
        cut = flat(scores_of(criterion, model, dataset))
        np.testing.assert_allclose(cut, whole, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("criterion", WITH_DATA)
def test_float32_is_close_and_a_float64_model_the_same(criterion):
    model = randomise(residual_net())
    data = images(model, 20)
    exact = flat(scores_of(criterion, model, data))
    rough = flat(scores_of(criterion, model, data, dtype="float32"))
    np.testing.assert_allclose(rough, exact, atol=1e-5 * np.abs(exact).max())
    same = flat(scores_of(criterion, double(model), data))
    np.testing.assert_allclose(same, exact, rtol=1e-10, atol=1e-14)


def test_grasp_removes_first_what_raises_the_gradient_norm_most():
    """Each weight is removed in turn, and the norm of the gradient computed anew."""
    inputs = keras.Input((4,))
    x = layers.Dense(5, activation="tanh", dtype="float64", name="a")(inputs)
    model = keras.Model(inputs, layers.Dense(3, dtype="float64", name="b")(x))
    generator = np.random.default_rng(1)
    for variable in model.weights:  # small, so that a removal is a small step
        variable.assign(0.05 * generator.standard_normal(variable.shape))
    x, _ = images(model, 30)
    y = x[:, :3].argmax(-1)  # something to learn: a gradient larger than the weights
    found = flat(scores_of("grasp", model, (x, y)))

    def norm():
        return sum((g**2).sum() for g in tape_gradients(model, x, y, 200))

    whole, changes = norm(), []
    for kernel in kernels_of(model).values():
        value = kernel.numpy()
        for index in np.ndindex(value.shape):
            without = value.copy()
            without[index] = 0
            kernel.assign(without)
            changes.append(norm() - whole)
        kernel.assign(value)
    changes = np.array(changes)
    assert np.argmin(found) == np.argmax(changes) and changes.max() > 0
    assert np.argmax(found) == np.argmin(changes) and changes.min() < 0
    ranks = [np.argsort(np.argsort(values)) for values in (found, -changes)]
    assert np.corrcoef(*ranks)[0, 1] > 0.98


def relu_net(seed):
    """Bias-free, feed-forward, all ReLU: what the conservation theorems are about."""
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(5, 3, activation="relu", use_bias=False, name="c1")(inputs)
    x = layers.Conv2D(4, 2, activation="relu", use_bias=False, name="c2")(x)
    x = layers.Flatten()(x)
    x = layers.Dense(7, activation="relu", use_bias=False, name="d1")(x)
    model = keras.Model(inputs, layers.Dense(3, use_bias=False, name="d2")(x))
    return randomise(model, seed)


def derivatives_of(model, data):
    policy = tf_synflow.PruningPolicy("snip", progress=False)
    task = policy.prepare(model, data)
    return Derivatives(task.problem), task.problem.weights, task.start


@pytest.mark.parametrize("seed", range(3))
def test_signed_snip_is_conserved_layer_by_layer_and_unit_by_unit(seed):
    model = relu_net(seed)
    derivatives, weights, masks = derivatives_of(model, images(model, 20, seed))
    gradients = derivatives.gradient(masks)
    signed = {name: weights[name] * g for name, g in gradients.items()}
    totals = [score.sum() for score in signed.values()]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-10)
    into, out = signed["d1/kernel"].sum(0), signed["d2/kernel"].sum(1)
    np.testing.assert_allclose(into, out, rtol=1e-8, atol=1e-12)
    into, out = signed["c1/kernel"].sum((0, 1, 2)), signed["c2/kernel"].sum((0, 1, 3))
    np.testing.assert_allclose(into, out, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_grasp_is_conserved_up_to_the_squared_gradient_of_the_layer(seed):
    """With layer l times a: |g|^2 / 2 is f(product of all a) with g_l over a_l.

    So d/da of it, the layer's sum of w (Hg), plus |g_l|^2 is the same for all layers.
    """
    model = relu_net(seed)
    derivatives, weights, masks = derivatives_of(model, images(model, 20, seed))
    gradients = derivatives.gradient(masks)
    products = derivatives.hessian_gradient(masks)
    totals = [
        (weights[name] * products[name]).sum() + (gradients[name] ** 2).sum()
        for name in weights
    ]
    np.testing.assert_allclose(totals, totals[0], rtol=1e-9)


def classifier(end):
    """The same network with logits, or with a softmax in one of three places."""
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2D(3, 3, activation="relu", name="conv")(inputs)
    x = layers.Flatten()(x)
    if end == "fused":
        return keras.Model(inputs, layers.Dense(4, "softmax", name="fc")(x))
    x = layers.Dense(4, name="fc")(x)
    if end == "softmax layer":
        x = layers.Softmax()(x)
    if end == "activation layer":
        x = layers.Activation("softmax")(x)
    return keras.Model(inputs, x)


ENDS = ["fused", "softmax layer", "activation layer"]


@pytest.mark.parametrize(
    ("criterion", "end"),
    [
        *((criterion, ENDS[0]) for criterion in WITH_DATA),
        *((c, e) for c in ("snip", "grasp") for e in ENDS[1:]),
    ],
)
def test_logits_and_softmax_give_the_same(criterion, end):
    plain, ended = randomise(classifier("logits")), randomise(classifier(end))
    for model in (plain, ended):  # far from 0, where a clipped softmax would show
        model.get_layer("fc").bias.assign([40, 0, -40, 10])
    x, y = images(plain, 20)
    plain.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ended.compile(loss="sparse_categorical_crossentropy")
    wanted = flat(scores_of(criterion, plain, (x, y)))
    np.testing.assert_allclose(
        flat(scores_of(criterion, ended, (x, y))), wanted, rtol=1e-9, atol=1e-13
    )
    one_hot = np.eye(4)[y]
    for model, loss in (
        (ended, "categorical_crossentropy"),
        (plain, keras.losses.CategoricalCrossentropy(from_logits=True)),
    ):
        found = flat(scores_of(criterion, model, (x, one_hot), loss=loss))
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-13)


def test_without_a_loss_it_is_the_cross_entropy_that_fits():
    model = randomise(classifier("fused"))
    x, y = images(model, 20)
    given = flat(scores_of("snip", model, (x, y), loss="SparseCategoricalCrossentropy"))
    for labels in (y, y[:, None], np.eye(4)[y]):
        found = flat(scores_of("snip", model, (x, labels)))
        np.testing.assert_allclose(found, given, rtol=1e-12)


def binary(end):
    model = keras.Sequential(
        [layers.Input((5,)), layers.Dense(3), layers.Dense(1, end)]
    )
    return randomise(model)


def test_sigmoid_and_its_logits_give_the_same():
    x = np.random.default_rng(0).standard_normal((20, 5))
    y = np.arange(20) % 2
    logits = keras.losses.BinaryCrossentropy(from_logits=True)
    wanted = flat(scores_of("grasp", binary(None), (x, y), loss=logits))
    for settings in ({"loss": "binary_crossentropy"}, {}):
        found = flat(scores_of("grasp", binary("sigmoid"), (x, y), **settings))
        np.testing.assert_allclose(found, wanted, rtol=1e-9)


def test_losses_of_other_kinds_and_functions():
    model = randomise(keras.Sequential([layers.Input((3,)), layers.Dense(2)]))
    generator = np.random.default_rng(0)
    x, y = generator.standard_normal((9, 3)), generator.standard_normal((9, 2))
    kernel, bias = (variable.numpy().astype("float64") for variable in model.weights)
    gradient = x.T @ (2 * (x @ kernel + bias - y))
    expected = np.abs(kernel * gradient) / np.abs(kernel * gradient).sum()
    for loss in (
        "mse",
        keras.losses.MeanSquaredError(reduction="sum"),
        lambda labels, outputs: tf.reduce_mean((outputs - labels) ** 2, -1),
        lambda labels, outputs: tf.reduce_mean((outputs - labels) ** 2),
    ):
        dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
        found = scores_of("snip", model, dataset, loss=loss)["dense/kernel"]
        np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("criterion", WITH_DATA)
@pytest.mark.parametrize("training", [False, True])
def test_statistics_and_weights_stay_as_they_are(criterion, training):
    model = randomise(residual_net())
    model.compile("sgd", "mse")
    before = [weight.tobytes() for weight in model.get_weights()]
    data = images(model, 20)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    scores_of(criterion, model, data, training=training, loss=loss)
    assert [weight.tobytes() for weight in model.get_weights()] == before


def test_training_normalises_by_the_batch():
    model = randomise(residual_net())
    x, y = images(model, 20)
    found = flat(scores_of("snip", model, (x, y), training=True))
    weights = kernels_of(model)
    gradients = tape_gradients(double(model), x, y, 1, training=True)
    pairs = zip(weights.values(), gradients, strict=True)
    expected = np.concatenate([np.abs(w.numpy() * g).ravel() for w, g in pairs])
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-9, atol=1e-14)
    assert np.abs(found - flat(scores_of("snip", model, (x, y)))).max() > 1e-3


def test_training_is_repeatable_where_there_is_dropout():
    inputs = keras.Input((6,))
    x = layers.Dropout(0.5)(layers.GaussianNoise(1.0)(layers.Dense(8)(inputs)))
    model = randomise(keras.Model(inputs, layers.Dense(3)(x)))
    data = images(model, 30)
    once = flat(scores_of("grasp", model, data, training=True))
    again = flat(scores_of("grasp", model, data, training=True))
    np.testing.assert_array_equal(once, again)


@pytest.mark.parametrize("criterion", WITH_DATA)
@pytest.mark.parametrize("scope", ["global", "local"])
def test_single_shot_and_iterated_global_and_local(criterion, scope):
    model = randomise(residual_net())
    options = dict(scope=scope, progress=False)
    single, iterated = (
        tf_synflow.PruningPolicy(criterion, **more, **options).masks(
            model, 6, images(model, 10)
        )
        for more in ({}, {"iterations": 4})
    )
    for masks in (single, iterated):
        if scope == "local":
            assert [m.sum() for m in masks.values()] == [
                kept_count(m.size, 6) for m in masks.values()
            ]
        else:
            size = sum(mask.size for mask in masks.values())
            assert sum(mask.sum() for mask in masks.values()) == kept_count(size, 6)
    assert any((single[name] != iterated[name]).any() for name in single)


def test_a_pruned_model_is_scored_under_its_masks():
    model = randomise(residual_net())
    pruned = tf_synflow.prune(model, 3, criterion="magnitude")
    masks = tf_synflow.get_masks(pruned)
    data = images(model, 20)
    found = scores_of("grasp", pruned, data)
    sparse = double(tf_synflow.strip(pruned))
    x, y = data
    kernels = kernels_of(sparse)
    directions = tape_gradients(sparse, x, y, 200)
    step, sides = 1e-4, []
    start = [kernel.numpy() for kernel in kernels.values()]
    for sign in (1, -1):  # along the gradient of the survivors only
        for kernel, w, d, m in zip(
            kernels.values(), start, directions, masks.values(), strict=True
        ):
            kernel.assign(w + sign * step * d * m)
        sides.append(tape_gradients(sparse, x, y, 200))
    expected = [
        w * (a - b) for w, a, b in zip(start, *sides, strict=True)
    ]  # 0 where pruned
    total = abs(sum(e.sum() for e in expected))
    for score, e in zip(found.values(), expected, strict=True):
        np.testing.assert_allclose(score, e / total, atol=1e-5)


def mixed_inputs():
    """Two named inputs, one of whole numbers, through a recurrent layer."""
    words = keras.Input((6,), dtype="int32", name="words")
    numbers = keras.Input((4,), name="numbers")
    x = layers.Embedding(10, 5)(words)
    x = layers.Bidirectional(layers.LSTM(3))(x)
    x = layers.Concatenate()([x, 2.0 * numbers])
    return keras.Model([words, numbers], layers.Dense(3, name="fc")(x))


def test_named_inputs_nested_layers_and_operators():
    model = randomise(mixed_inputs())
    generator = np.random.default_rng(0)
    words = generator.integers(0, 10, (20, 6))
    numbers = generator.standard_normal((20, 4))
    y = generator.integers(0, 3, 20)
    scores = scores_of("snip", model, ([words, numbers], y))
    wanted = flat(scores)
    named = {"numbers": numbers, "words": words}
    dataset = tf.data.Dataset.from_tensor_slices((named, y)).batch(6)
    for data in ((named, y), dataset):
        found = flat(scores_of("snip", model, data))
        np.testing.assert_allclose(found, wanted, rtol=1e-10)
    features = keras.Model(model.inputs, model.get_layer("concatenate").output)
    kernel = model.get_layer("fc").kernel
    x = features([words, numbers]).numpy().astype("float64")
    logits = x @ kernel.numpy() + model.get_layer("fc").bias.numpy()
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.abs(kernel.numpy() * (x.T @ (p - np.eye(3)[y])))
    own = scores["fc/kernel"] / scores["fc/kernel"].sum()
    np.testing.assert_allclose(own, expected / expected.sum(), rtol=1e-4)


def own_magnitude(model, data):
    weights = kernels_of(model)
    for variable in model.weights[::-1]:  # it may do as it likes with its copy
        variable.assign(variable * 0 + 7 if "bias" in variable.name else variable)
    return {name: np.abs(variable.numpy()) for name, variable in weights.items()}


def test_a_function_goes_where_a_name_goes():
    model = randomise(residual_net())
    before = [weight.tobytes() for weight in model.get_weights()]
    named = tf_synflow.PruningPolicy("magnitude", iterations=3).masks(model, 5)
    masks = tf_synflow.PruningPolicy(own_magnitude, iterations=3).masks(model, 5)
    assert all((named[name] == masks[name]).all() for name in named)
    assert [weight.tobytes() for weight in model.get_weights()] == before


def test_a_function_sees_the_pruned_network_and_the_data():
    model, seen = randomise(residual_net()), []

    def criterion(copy, data):
        assert data == "anything"
        weights = kernels_of(copy)
        seen.append(sum(np.count_nonzero(v.numpy()) for v in weights.values()))
        return {name: np.abs(variable.numpy()) for name, variable in weights.items()}

    policy = tf_synflow.PruningPolicy(criterion, iterations=3, schedule="linear")
    policy.masks(model, 5, "anything")
    size = sum(v.shape.num_elements() for v in kernels_of(model).values())
    densities = [1, 1 - 0.8 / 3, 1 - 1.6 / 3]
    assert seen == [size - int((1 - density) * size) for density in densities]


def test_inverted_magnitude_keeps_the_smallest():
    model = randomise(residual_net())
    policy = tf_synflow.PruningPolicy("magnitude", invert=True)
    masks = policy.masks(model, 4)
    weights = flat({n: np.abs(v.numpy()) for n, v in kernels_of(model).items()})
    kept = flat(masks)
    assert weights[kept].max() < weights[~kept].min()
    flow = tf_synflow.PruningPolicy(invert=True, iterations=1)
    right_way = tf_synflow.PruningPolicy(iterations=1).score(model)
    scores = flat(right_way)
    kept = flat(flow.masks(model, 4))
    assert scores[kept].max() <= scores[~kept].min()
    assert flow.score(model)["conv1/kernel"].sum() == -right_way["conv1/kernel"].sum()


def test_the_callback_prunes_by_the_compiled_loss():
    model = randomise(classifier("fused"))
    x, y = images(model, 32)
    model.compile("sgd", "sparse_categorical_crossentropy")
    expected = tf_synflow.PruningPolicy("snip").masks(model, 4, (x, y))
    callback = tf_synflow.PruningCallback(
        4, policy=tf_synflow.PruningPolicy("snip"), data=(x, y)
    )
    model.fit(x, y, verbose=0, callbacks=[callback])
    for name, mask in tf_synflow.get_masks(model).items():
        np.testing.assert_array_equal(mask, expected[name])


X, Y = np.zeros((6, 4, 4, 2), "float32"), np.arange(6) % 4
LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def batches(x=X, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(2)


def frozen_nan(model):
    model = keras.models.clone_model(model)
    model.get_layer("bn").moving_mean.assign([np.nan, 0, 0])
    return model


binary_loss = keras.losses.BinaryCrossentropy()


def two_outputs(model):
    return keras.Model(model.inputs, [model.output, model.output])


def named(**scores):
    """A criterion function that returns magnitudes, some of them replaced."""

    def criterion(model, data):
        found = {name: np.abs(v.numpy()) for name, v in kernels_of(model).items()}
        found |= {f"{name}/kernel": score for name, score in scores.items()}
        return {name: score for name, score in found.items() if score is not None}

    return criterion


BAD = [
    ("snip", None, {}, ValueError, "needs data, and got none"),
    ("snip", X, {}, TypeError, "expected data=.x, y."),
    ("snip", (X, Y, Y, Y), {}, TypeError, "expected data="),
    ("snip", iter([]), {}, TypeError, "expected data="),
    ("snip", (X[:0], Y[:0]), {}, ValueError, "data is empty"),
    ("snip", batches().take(0), {}, ValueError, "data is empty"),
    ("snip", batches().repeat(), {}, ValueError, "never ends"),
    ("snip", batches().map(lambda x, y: x), {}, TypeError, "elements of this"),
    ("snip", batches().unbatch(), {}, ValueError, "comes in batches"),
    ("snip", (X, Y[:4]), {}, ValueError, "differ in length"),
    ("snip", (X[:, :3], Y), {}, ValueError, r"shape \(None, 3, 4, 2\)"),
    ("snip", (X[..., :1], Y), {}, ValueError, "the model's input is"),
    ("snip", ([X, X], Y), {}, ValueError, "differ in length"),
    ("snip", batches((X, X)), {}, ValueError, r"2\) and \(None, 4, 4, 2\), batch axis"),
    ("snip", batches({"a": X}), {}, ValueError, "no input for .'input_1'."),
    ("snip", (X, Y + 1), {}, ValueError, "from 0 to 3, one of 4 outputs; got 4"),
    ("snip", (X, Y - 1), {}, ValueError, "got -1"),
    ("snip", (X, Y + 0.5), {}, ValueError, "whole numbers"),
    ("snip", (X, np.eye(5)[Y]), {}, ValueError, "labels have shape"),
    ("snip", (X, np.eye(4)[Y]), {"loss": LOGITS}, ValueError, "labels have shape"),
    ("snip", (X, np.array(list("abcabc"))), {}, ValueError, "must be numbers"),
    ("snip", (X * np.nan, Y), {}, ValueError, "the loss is nan"),
    ("snip", (X, Y), {"loss": 3}, TypeError, "must be a Keras loss"),
    ("snip", (X, Y), {"loss": keras.losses.Huber}, TypeError, "not a class"),
    ("snip", (X, {"a": Y}), {}, ValueError, "y names the outputs .'a'., but"),
    ("snip", ([[1, 2], [3]], Y), {}, ValueError, "x is no array"),
    ("snip", (X, np.eye(4)[Y] * -7), {}, ValueError, "probabilities, 0 to 1"),
    ("snip", (X, Y), {"temperature": "2"}, ValueError, "above 0, got '2'"),
    ("snip", (X, Y), {"loss": "mse"}, ValueError, "mean_squared_error wants"),
    ("snip", (X, Y), {"loss": "nonsense"}, ValueError, "nonsense"),
    ("grasp", (X, np.eye(4)[Y]), {"loss": "mse"}, ValueError, "temperature=1"),
    ("snip", (X, Y), {"temperature": 0}, ValueError, "above 0"),
    (
        "snip",
        (X, Y),
        {"loss": lambda y, p: tf.reduce_sum(tf.sqrt(p * 0), -1)},
        ValueError,
        "no finite slope",
    ),
    (named(conv1=None), None, {}, ValueError, "missing are .'conv1/kernel'."),
    (named(conv9=1), None, {}, ValueError, "not among them are .'conv9/kernel'."),
    (named(fc=np.ones(3)), None, {}, ValueError, r"of shape \(3,\) for 'fc/kernel'"),
    (named(fc=np.full((16, 4), np.nan)), None, {}, ValueError, "returned NaN"),
    (lambda model, data: [1], None, {}, TypeError, "must return a dictionary"),
]


@pytest.mark.parametrize(("criterion", "data", "settings", "kind", "message"), BAD)
def test_bad_input_is_refused_and_changes_nothing(
    criterion, data, settings, kind, message
):
    model = randomise(residual_net())
    before = [weight.tobytes() for weight in model.get_weights()]
    with pytest.raises(kind, match=message):
        tf_synflow.prune(model, 4, criterion=criterion, data=data, **settings)
    assert [weight.tobytes() for weight in model.get_weights()] == before


def test_models_that_no_loss_fits_are_refused():
    with pytest.raises(ValueError, match="2 outputs"):
        scores_of("snip", two_outputs(residual_net()), (X, Y))
    with pytest.raises(ValueError, match="BinaryCrossentropy goes with a sigmoid"):
        scores_of("snip", classifier("fused"), (X, np.eye(4)[Y]), loss=binary_loss)
    hidden = classifier("logits")
    hidden = keras.Model(hidden.inputs, tf.nn.softmax(hidden.output))
    with pytest.raises(ValueError, match="say which loss"):
        scores_of("snip", hidden, (X, Y))
    with pytest.raises(ValueError, match="'bn/moving_mean' holds NaN"):
        scores_of("snip", frozen_nan(residual_net()), (X, Y))


def test_missing_data_is_refused_before_the_first_epoch():
    model = residual_net()
    model.compile("sgd", LOGITS)
    callback = tf_synflow.PruningCallback(4, tf_synflow.PruningPolicy("snip"), epoch=3)
    before = [weight.tobytes() for weight in model.get_weights()]
    with pytest.raises(ValueError, match="needs data"):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=[callback])
    assert [weight.tobytes() for weight in model.get_weights()] == before


def trained_gradient(model, x, y):
    """|w g| over its total, from what one step of Keras's own training changes."""
    kernels = kernels_of(model)
    before = {name: variable.numpy() for name, variable in kernels.items()}
    model.optimizer = keras.optimizers.SGD(1.0)
    model.train_on_batch(x, y)
    score = {n: abs(before[n] * (before[n] - v.numpy())) for n, v in kernels.items()}
    total = sum(part.sum() for part in score.values())
    return flat(score) / total


def regression():
    model = [layers.Input((5,)), layers.Dense(4, "tanh"), layers.Dense(1)]
    return randomise(keras.Sequential(model))


class OwnLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return tf.reduce_mean((y_pred - y_true) ** 2, -1)


@pytest.mark.parametrize(
    "loss",
    [
        "mse",
        "mean_absolute_error",
        keras.losses.Huber(),
        keras.losses.log_cosh,
        lambda y, p: tf.reduce_mean((p - y) ** 2, -1),
        OwnLoss(),
    ],
)
@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_labels_of_a_regression_are_as_keras_has_them(loss, shape):
    model = regression()
    generator = np.random.default_rng(0)
    x = generator.standard_normal((12, 5)).astype("float32")
    y = generator.standard_normal(shape).astype("float32")
    model.compile("sgd", loss)
    found = flat(scores_of("snip", model, (x, y)))
    expected = trained_gradient(model, x, y)
    np.testing.assert_allclose(found, expected, atol=1e-4)


SCE, CCE = (
    keras.losses.SparseCategoricalCrossentropy,
    keras.losses.CategoricalCrossentropy,
)


@pytest.mark.parametrize(
    ("loss", "labels"),
    [
        (SCE(from_logits=True, ignore_class=1), lambda y: y),
        (CCE(from_logits=True, label_smoothing=0.3), lambda y: np.eye(4)[y]),
        ([SCE(from_logits=True)], lambda y: y),
        ({"fc": SCE(from_logits=True)}, lambda y: y),
        (SCE(from_logits=True, reduction="sum"), lambda y: y),
    ],
)
def test_what_the_compiled_loss_says_counts(loss, labels):
    model = randomise(classifier("logits"))
    x, y = images(model, 24)
    model.compile("sgd", loss)
    found = flat(scores_of("snip", model, (x, labels(y))))
    np.testing.assert_allclose(found, trained_gradient(model, x, labels(y)), atol=1e-4)


def test_a_given_temperature_divides_the_logits():
    model = randomise(residual_net())
    x, y = images(model, 12)
    found = flat(scores_of("snip", model, (x, y), temperature=7))
    gradients = tape_gradients(double(model), x, y, 7)
    weights = [v.numpy() for v in kernels_of(model).values()]
    expected = np.concatenate(
        [abs(w * g).ravel() for w, g in zip(weights, gradients, strict=True)]
    )
    np.testing.assert_allclose(found, expected / expected.sum(), rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
@pytest.mark.parametrize("invert", [False, True])
def test_iterating_is_scoring_and_masking_in_turn(criterion, invert):
    model = randomise(residual_net())
    data = images(model, 10)
    settings = {"criterion": criterion, "progress": False, "invert": invert}
    found = tf_synflow.PruningPolicy(**settings, iterations=3).masks(model, 6, data)
    once, pruned = tf_synflow.PruningPolicy(**settings), model
    for removed in (int((1 - 6 ** (-k / 3)) * 175) for k in (1, 2, 3)):
        masks = once.masks(pruned, Fraction(removed, 175), data)
        pruned = tf_synflow.apply_masks(model, masks)
    for name, mask in tf_synflow.get_masks(pruned).items():
        np.testing.assert_array_equal(found[name], mask)


def test_time_steps_that_are_masked_do_not_count():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 5, mask_zero=True)(inputs)
    x = layers.LSTM(4, return_sequences=True)(x)
    model = keras.Model(inputs, layers.Dense(3, name="fc")(x))
    model = randomise(model)
    generator = np.random.default_rng(0)
    words, y = generator.integers(0, 4, (9, 6)), generator.integers(0, 3, (9, 6))
    model.compile("sgd", LOGITS)
    for temperature in (1, 3):
        scale = (lambda z: z) if temperature == 1 else (lambda z: z / 3)
        kernel = model.get_layer("fc").kernel.numpy().astype("float64")
        states = keras.Model(inputs, x)(words).numpy().astype("float64")
        logits = scale(states @ kernel + model.get_layer("fc").bias.numpy())
        p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        error = (p - np.eye(3)[y]) * (words != 0)[..., None]
        expected = abs(kernel * np.einsum("bti,btj->ij", states, error))
        scores = scores_of("snip", model, (words, y), temperature=temperature)
        found = scores["fc/kernel"] / scores["fc/kernel"].sum()
        np.testing.assert_allclose(
            found, expected / expected.sum(), rtol=1e-4, atol=1e-6
        )


def shared_softmax():
    squash = layers.Activation("softmax")
    inputs = keras.Input((4, 4, 2))
    x = squash(layers.Dense(6)(layers.Flatten()(inputs)))
    return randomise(keras.Model(inputs, squash(layers.Dense(4)(x))))


def test_an_activation_that_is_used_elsewhere_stays():
    model = shared_softmax()
    x, y = images(model, 20)
    model.compile("sgd", "sparse_categorical_crossentropy")
    found = flat(scores_of("snip", model, (x, y)))
    np.testing.assert_allclose(found, trained_gradient(model, x, y), atol=1e-4)
    with pytest.raises(ValueError, match="set temperature=1"):
        scores_of("grasp", model, (x, y))


def test_a_recurrent_cells_own_activation_is_not_the_last():
    inputs = keras.Input((4, 2))
    x = layers.LSTM(1, activation="sigmoid")(layers.Dense(3)(inputs))
    model = randomise(keras.Model(inputs, x))
    x = np.random.default_rng(0).standard_normal((8, 4, 2)).astype("float32")
    y = np.arange(8) % 2
    model.compile("sgd", "binary_crossentropy")
    found = scores_of("snip", model, (x, y))["dense/kernel"].ravel()
    kernel = model.get_layer("dense").kernel
    with tf.GradientTape() as tape:
        p = model(x)[:, 0]
        loss = tf.reduce_mean(tf.where(y == 1, -tf.math.log(p), -tf.math.log(1 - p)))
    expected = abs(kernel * tape.gradient(loss, kernel)).numpy().ravel()
    shares = [own / own.sum() for own in (found, expected)]
    np.testing.assert_allclose(*shares, rtol=1e-3)


def test_the_callback_prunes_on_two_devices(two_devices):
    x, y = images(residual_net(), 32)
    with two_devices.scope():
        model = randomise(residual_net())
        model.compile("sgd", LOGITS)
    policy = tf_synflow.PruningPolicy("grasp")
    expected = policy.masks(randomise(residual_net()), 4, (x, y))
    callback = tf_synflow.PruningCallback(4, policy, (x, y))
    model.fit(x, y, batch_size=16, verbose=0, callbacks=[callback])
    for name, mask in tf_synflow.get_masks(model).items():
        np.testing.assert_array_equal(mask, expected[name])


def test_batches_of_different_lengths():
    inputs = keras.Input((None, 3))
    x = layers.GlobalAveragePooling1D()(layers.Dense(4, name="a")(inputs))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="b")(x)))
    generator = np.random.default_rng(0)
    parts = [generator.standard_normal((6, n, 3)) for n in (5, 7)]
    labels = [generator.integers(0, 2, 6) for _ in parts]

    def batches():
        yield from zip(parts, labels, strict=True)

    signature = (tf.TensorSpec((None, None, 3)), tf.TensorSpec((None,), tf.int64))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=signature)
    found = scores_of("snip", model, dataset)["b/kernel"]
    features = keras.Model(inputs, x)
    states = np.concatenate([features(part).numpy() for part in parts])
    kernel, bias = (v.numpy() for v in model.get_layer("b").weights)
    logits = (states @ kernel + bias).astype("float64")
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = abs(kernel * (states.T @ (p - np.eye(2)[np.concatenate(labels)])))
    share = found / found.sum()
    np.testing.assert_allclose(share, expected / expected.sum(), rtol=1e-4)


def test_dropout_in_a_recurrent_layer_is_off_in_training_too():
    inputs = keras.Input((5, 3))
    x = layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5)(inputs)
    model = randomise(keras.Model(inputs, layers.Dense(3)(x)))
    generator = np.random.default_rng(0)
    data = generator.standard_normal((20, 5, 3)), generator.integers(0, 3, 20)
    once = flat(scores_of("snip", model, data, training=True))
    np.testing.assert_array_equal(
        once, flat(scores_of("snip", model, data, training=True))
    )


def test_scores_that_are_all_zero_are_worth_a_warning():
    model = keras.Sequential([layers.Input((3,)), layers.Dense(2, use_bias=False)])
    with pytest.warns(UserWarning, match="all scores are 0"):
        scores_of("snip", randomise(model), (np.zeros((4, 3)), np.arange(4) % 2))


def two_heads(ends=(None, None)):
    """One trunk, a classifier "kind" and, at three places, a regression "level"."""
    inputs = keras.Input((3, 4), name="x")
    x = layers.Dense(5, "tanh", name="trunk")(inputs)
    kind = layers.Dense(4, ends[0], name="kind")(layers.Flatten()(x))
    level = layers.Dense(2, ends[1], name="level")(x)
    return randomise(keras.Model(inputs, [kind, level]))


def two_labels(count=10):
    generator = np.random.default_rng(0)
    x = generator.standard_normal((count, 3, 4)).astype("float32")
    kind = generator.integers(0, 4, count)
    level = generator.standard_normal((count, 3, 2))
    weights = generator.uniform(0, 2, count), generator.uniform(0, 2, (count, 3))
    return x, kind, level, weights


def two_losses(model, x, kind, level, weights=(1, 1), factors=(1, 1), temperature=1):
    """The loss of `two_heads` by its formula, and its gradients, in float64.

    The means are over all losses, 10 and 30 of them, and not over the sum of weights.
    """
    w = [tf.Variable(v.numpy().astype("float64")) for v in model.weights]
    x = x.astype("float64")
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            hidden = tf.tanh(x @ w[0] + w[1])
            logits = tf.reshape(hidden, (len(x), 15)) @ w[2] + w[3]
            log_p = tf.nn.log_softmax(logits / temperature)
            first = -tf.reduce_sum(log_p * np.eye(4)[kind], -1)
            error = (hidden @ w[4] + w[5]) / temperature - level
            second = tf.reduce_mean(error**2, -1)
            loss = sum(
                factor * tf.reduce_sum(weight * values) / tf.size(values, tf.float64)
                for factor, weight, values in zip(
                    factors, weights, (first, second), strict=True
                )
            )
        kernels = [w[0], w[2], w[4]]
        gradients = inner.gradient(loss, kernels)
        half_norm = sum(tf.reduce_sum(g**2) for g in gradients) / 2
    return loss, kernels, gradients, outer.gradient(half_norm, kernels)


def expected_scores(criterion, model, *args, **settings):
    _, kernels, gradients, products = two_losses(model, *args, **settings)
    derivatives = products if criterion in SECOND_ORDER else gradients
    pairs = zip(kernels, derivatives, strict=True)
    scores = [FORMULAS[criterion](w.numpy(), d.numpy()) for w, d in pairs]
    total = abs(sum(score.sum() for score in scores))
    names = ["trunk/kernel", "kind/kernel", "level/kernel"]
    return {name: score / total for name, score in zip(names, scores, strict=True)}


def assert_close(found, expected, **tolerance):
    assert set(found) == set(expected)
    for name, score in expected.items():
        np.testing.assert_allclose(found[name], score, **tolerance)


class Batches(keras.utils.Sequence):
    """The arrays as a Sequence, cut as Samples cuts them or finer."""

    def __init__(self, *parts, size=128):
        self.parts, self.size = parts, size

    def __len__(self):
        return -(-len(tf.nest.flatten(self.parts)[0]) // self.size)

    def __getitem__(self, number):
        part = slice(number * self.size, (number + 1) * self.size)
        return tf.nest.map_structure(lambda array: array[part], self.parts)


TWO_LOSSES = {"kind": LOGITS, "level": "mse"}


@pytest.mark.parametrize("criterion", WITH_DATA)
def test_several_outputs_with_factors_and_sample_weights(criterion):
    """As arrays and a Sequence; for SNIP, as every kind of data, by order and name."""
    model = two_heads()
    model.compile(loss=TWO_LOSSES, loss_weights={"level": 0.3, "kind": 2})
    x, kind, level, weights = two_labels()
    expected = expected_scores(
        criterion, model, x, kind, level, weights, factors=(2, 0.3)
    )
    listed = x, (kind, level), weights
    named = (
        {"x": x},
        {"level": level, "kind": kind},
        {"level": weights[1], "kind": weights[0]},
    )
    tolerance = {"rtol": 1e-9, "atol": 1e-14}
    exact = scores_of(criterion, model, listed, temperature=1)
    assert_close(exact, expected, **tolerance)
    same = [named, Batches(*listed), Batches(*named)]
    for data in same if criterion == "snip" else same[-1:]:
        found = scores_of(criterion, model, data, temperature=1)
        for name, score in exact.items():
            np.testing.assert_array_equal(found[name], score)
    dataset = tf.data.Dataset.from_tensor_slices(named).batch(3)
    for data in [dataset, Batches(*listed, size=3)] if criterion == "snip" else []:
        found = scores_of(criterion, model, data, temperature=1)
        assert_close(found, expected, **tolerance)


def test_the_loss_of_several_outputs_is_the_one_that_keras_trains_by():
    """The formula that the tests above rely on, against Keras's own."""
    model = two_heads()
    model.compile("sgd", TWO_LOSSES, loss_weights=[2, 0.3])
    x, kind, level, weights = two_labels()
    loss, *_ = two_losses(model, x, kind, level, weights, (2, 0.3))
    found = model.test_on_batch(x, [kind, level], list(weights))[0]
    assert found == pytest.approx(float(loss), rel=1e-6)


@pytest.mark.parametrize(
    ("loss", "which"),
    [
        ({"kind": LOGITS}, (1, 0)),
        ([None, "mse"], (0, 1)),
        ([LOGITS, keras.losses.MeanSquaredError()], (1, 1)),
    ],
)
def test_an_output_without_a_loss_is_left_out(loss, which):
    model = two_heads()
    x, kind, level, _ = two_labels()
    labels = {"kind": kind, "level": level}
    labels = {n: v for (n, v), kept in zip(labels.items(), which, strict=True) if kept}
    expected = expected_scores("snip", model, x, kind, level, factors=which)
    ones = {name: np.ones(score.shape) for name, score in expected.items()}
    # tfmot renames the outputs; either name will do.
    for network in (model, tf_synflow.apply_masks(model, ones)):
        found = scores_of("snip", network, (x, labels), loss=loss)
        assert_close(found, expected, rtol=1e-9, atol=1e-14)


def test_one_array_of_sample_weights_is_for_all_outputs_and_one_loss_too():
    model = two_heads()
    x, _, level, (weights, _) = two_labels()
    labels = np.random.default_rng(1).standard_normal((10, 4)), level
    with_loss = scores_of("snip", model, (x, labels, weights), loss="mse")
    kernels = kernels_of(model)
    with tf.GradientTape() as tape:
        outputs = model(x)
        errors = [(o - y) ** 2 for o, y in zip(outputs, labels, strict=True)]
        first = tf.reduce_mean(errors[0], -1) * weights
        second = tf.reduce_mean(errors[1], -1) * weights[:, None]
        loss = tf.reduce_mean(first) + tf.reduce_mean(second)
    gradients = tape.gradient(loss, list(kernels.values()))
    pairs = zip(kernels.values(), gradients, strict=True)
    expected = np.concatenate([abs(w * g).numpy().ravel() for w, g in pairs])
    np.testing.assert_allclose(
        flat(with_loss), expected / expected.sum(), rtol=1e-4, atol=1e-7
    )


def test_the_logits_of_several_outputs_are_divided_by_the_temperature():
    """Both end in a softmax; without a loss, the cross-entropy that fits them."""
    inputs = keras.Input((4,))
    x = layers.Dense(5, "tanh", name="trunk")(inputs)
    heads = [layers.Dense(n, "softmax", name=f"head{n}")(x) for n in (3, 2)]
    model = randomise(keras.Model(inputs, heads))
    generator = np.random.default_rng(0)
    x = generator.integers(-3, 4, (9, 4)).astype("float64")
    labels = [np.arange(9) % 3, np.arange(9) % 2]
    found = scores_of("grasp", model, (x, labels))
    w = [tf.Variable(v.numpy().astype("float64")) for v in model.weights]
    kernels = w[::2]
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            hidden = tf.tanh(x @ w[0] + w[1])
            loss = 0.0
            for kernel, bias, y in zip(w[2::2], w[3::2], labels, strict=True):
                log_p = tf.nn.log_softmax((hidden @ kernel + bias) / 200)
                loss -= tf.reduce_sum(log_p * np.eye(len(bias.numpy()))[y]) / 9
        gradients = inner.gradient(loss, kernels)
        half_norm = sum(tf.reduce_sum(g**2) for g in gradients) / 2
    products = outer.gradient(half_norm, kernels)
    scores = [(k * p).numpy() for k, p in zip(kernels, products, strict=True)]
    total = abs(sum(score.sum() for score in scores))
    for name, score in zip(["trunk", "head3", "head2"], scores, strict=True):
        np.testing.assert_allclose(found[f"{name}/kernel"], score / total, rtol=1e-9)


def test_a_softmax_that_another_layer_reads_stays():
    inputs = keras.Input((4,))
    first = layers.Dense(3, "softmax", name="first")(inputs)
    second = layers.Dense(2, "softmax", name="second")(first)
    model = randomise(keras.Model(inputs, [first, second]))
    x = np.random.default_rng(0).standard_normal((9, 4)).astype("float32")
    labels = [np.arange(9) % 3, np.arange(9) % 2]
    model.compile("sgd", "sparse_categorical_crossentropy")
    found = flat(scores_of("snip", model, (x, labels)))
    np.testing.assert_allclose(found, trained_gradient(model, x, labels), atol=1e-4)
    with pytest.raises(ValueError, match="output 'first'. is not known"):
        scores_of("grasp", model, (x, labels))


def test_an_activation_that_is_not_the_losses_stays():
    """A cross-entropy "from logits" takes what comes out of a tanh for logits."""
    inputs = keras.Input((5,))
    model = randomise(keras.Model(inputs, layers.Dense(4, "tanh")(inputs)))
    x, y = images(model, 20)
    model.compile("sgd", LOGITS)
    found = flat(scores_of("snip", model, (x, y)))
    np.testing.assert_allclose(found, trained_gradient(model, x, y), atol=1e-5)


@pytest.mark.parametrize("criterion", WITH_DATA)
def test_a_sample_of_weight_2_is_the_sample_twice_and_of_0_none(criterion):
    model = randomise(classifier("logits"))
    x, y = images(model, 12)
    weights = np.array([0, 1, 2] * 4, "float32")
    found = flat(scores_of(criterion, model, (x, y, weights)))
    times = weights.astype(int)
    expected = flat(scores_of(criterion, model, (x.repeat(times, 0), y.repeat(times))))
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize("criterion", ["snip", "grasp"])
def test_a_sequence_gives_what_its_arrays_give(criterion):
    model = randomise(classifier("logits"))
    x, y = images(model, 150)
    weights = np.linspace(0, 1, 150)
    for data in ((x, y), (x, y, weights)):
        expected = scores_of(criterion, model, data)
        found = scores_of(criterion, model, Batches(*data))
        for name, score in expected.items():
            np.testing.assert_array_equal(found[name], score)


def test_time_steps_that_are_masked_do_not_count_in_the_mean_of_their_output():
    """Weighed against another output, it matters by how many a sum is divided."""
    words = keras.Input((6,), dtype="int32")
    x = layers.Embedding(10, 5, mask_zero=True)(words)
    tags = layers.Dense(3, name="tags")(x)
    rest = keras.Input((4,))
    model = keras.Model([words, rest], [tags, layers.Dense(2, name="rest")(rest)])
    model = randomise(model)
    generator = np.random.default_rng(0)
    x = [generator.integers(0, 3, (9, 6)), generator.standard_normal((9, 4))]
    labels = [generator.integers(0, 3, (9, 6)), generator.integers(0, 2, 9)]
    weights = [generator.uniform(0, 2, (9, 6)), generator.uniform(0, 2, 9)]
    model.compile("sgd", [LOGITS, LOGITS])
    found = scores_of("snip", model, (x, labels, weights))
    kernels = kernels_of(model)
    before = {name: kernels[name].numpy() for name in found}
    model.optimizer = keras.optimizers.SGD(1.0)
    model.train_on_batch(x, labels, weights)
    moved = {n: abs(b * (b - kernels[n].numpy())) for n, b in before.items()}
    total = sum(score.sum() for score in moved.values())
    for name, score in moved.items():
        np.testing.assert_allclose(found[name], score / total, atol=1e-5)


def test_the_callback_prunes_a_network_of_several_outputs():
    model = two_heads()
    model.compile("sgd", TWO_LOSSES, loss_weights=[2, 0.3])
    x, kind, level, _ = two_labels()
    policy = tf_synflow.PruningPolicy("snip", progress=False)
    scores = expected_scores("snip", model, x, kind, level, factors=(2, 0.3))
    kept = kept_count(90, 4)
    callback = tf_synflow.PruningCallback(4, policy, Batches(x, [kind, level], size=4))
    model.fit(x, [kind, level], verbose=0, callbacks=[callback])
    threshold = np.sort(flat(scores))[-kept]
    for name, mask in tf_synflow.get_masks(model).items():
        np.testing.assert_array_equal(mask, scores[name] >= threshold)


TWO_X, KIND, LEVEL, WEIGHTS = two_labels()


class Uneven(Batches):
    def __getitem__(self, number):
        return super().__getitem__(number)[: 3 - number]


@pytest.mark.parametrize(
    ("data", "settings", "kind", "message"),
    [
        ((TWO_X, KIND), {}, ValueError, "2 outputs, .'kind', 'level'.: y must be a"),
        ((TWO_X, [KIND]), {}, ValueError, "got list of 1"),
        ((TWO_X, [KIND, LEVEL[:4]]), {}, ValueError, "differ in length"),
        ((TWO_X, [KIND, LEVEL], np.ones(9)), {}, ValueError, "differ in length"),
        ((TWO_X, {"king": KIND}), {}, ValueError, "y names the outputs .'king'."),
        ((TWO_X, [KIND, None]), {}, ValueError, "'level': data has no labels"),
        ((TWO_X, None), {"loss": {}}, ValueError, "no output .* has labels and a loss"),
        ((TWO_X, [KIND + 1, LEVEL]), {}, ValueError, "output 'kind': labels must be"),
        ((TWO_X, [KIND, LEVEL[:, :2]]), {}, ValueError, "output 'level': labels have"),
        (
            (TWO_X, [KIND, LEVEL], {"level": WEIGHTS[1][:, :2]}),
            {},
            ValueError,
            "output 'level': sample weights have shape",
        ),
        (
            (TWO_X, [KIND, LEVEL], WEIGHTS[0] * np.nan),
            {},
            ValueError,
            "sample weights hold NaN",
        ),
        (
            (TWO_X, [KIND, LEVEL], WEIGHTS[0]),
            {"loss": [lambda y, p: tf.reduce_mean(p), "mse"]},
            ValueError,
            "need a loss for each sample",
        ),
        ((TWO_X, [KIND, LEVEL]), {"loss": ["mse"]}, ValueError, "loss must be a list"),
        ((TWO_X, [KIND, LEVEL]), {"loss": {"a": "mse"}}, ValueError, "loss names the"),
        ((TWO_X, [KIND, LEVEL]), {"temperature": 2}, ValueError, "output 'level'"),
        (
            Uneven(TWO_X, [KIND, LEVEL], list(WEIGHTS), size=5),
            {},
            ValueError,
            "some batches have labels .or sample weights. and some do not",
        ),
        (Batches(TWO_X), {}, TypeError, "a batch of this one is tuple of 1"),
        (Batches(TWO_X[:0], [KIND[:0], LEVEL[:0]]), {}, ValueError, "data is empty"),
    ],
)
def test_data_that_does_not_fit_several_outputs_is_refused(
    data, settings, kind, message
):
    model = two_heads()
    settings = {"loss": TWO_LOSSES, **settings}
    with pytest.raises(kind, match=message):
        scores_of("snip", model, data, **settings)
