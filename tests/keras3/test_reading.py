"""Keras 3 models as networks: names, order, nested models, what is refused."""

import keras
import numpy as np
import pytest
import tf_keras

import tf_synflow
from tf_synflow.frameworks import read

layers = keras.layers


def calls(model):
    return [call.name for call in read(model).calls]


def test_names_and_order_are_those_of_keras_2():
    def build(k):
        inputs = k.Input((6, 6, 2))
        late, early = (
            k.layers.Dense(4, name="z_late"),
            k.layers.Dense(4, name="a_early"),
        )
        x = k.layers.SeparableConv2D(4, 3, name="separable")(inputs)
        x = k.layers.BatchNormalization(name="bn")(x)
        x = k.layers.Flatten(name="flat")(x)
        return k.Model(inputs, late(early(x)))

    new, old = read(build(keras)), read(build(tf_keras))
    assert [call.name for call in new.calls] == [call.name for call in old.calls]
    assert list(new.weights) == list(old.weights)
    assert new.prunable == old.prunable
    assert new.shapes == old.shapes and new.dtypes == old.dtypes


def test_nested_models_are_joined_with_slashes_and_a_shared_layer_is_named_once():
    shared = layers.Dense(3, name="shared")
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(3, name="d")], name="inner"
    )
    middle_in = keras.Input((3,))
    middle = keras.Model(middle_in, shared(inner(middle_in)), name="middle")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2, name="out")(shared(middle(inputs))))
    assert list(read(model).prunable) == [
        "middle/inner/d/kernel",
        "middle/shared/kernel",
        "out/kernel",
    ]
    assert calls(model) == ["middle/inner/d", "middle/shared", "middle/shared", "out"]


def test_dictionaries_reach_the_inputs_of_their_names():
    inner_in = {"b": keras.Input((2,), name="b"), "a": keras.Input((3,), name="a")}
    joined = layers.Concatenate()([inner_in["b"], inner_in["a"]])
    inner = keras.Model(inner_in, layers.Dense(2, name="d")(joined), name="inner")
    one, two = keras.Input((3,), name="one"), keras.Input((2,), name="two")
    model = keras.Model([one, two], inner({"a": one, "b": two}))
    network = read(model)
    joins = network.calls[0]
    assert [network.shapes[number] for number in joins.inputs] == [(None, 2), (None, 3)]
    pruned = tf_synflow.prune(model, 2, iterations=2, progress=False)
    given = [np.ones((1, 3)), np.ones((1, 2))]
    assert tf_synflow.strip(pruned)(given).shape == (1, 2)


def test_a_model_that_begins_in_the_middle_of_another():
    inputs = keras.Input((3,))
    middle = layers.Dense(4, name="before")(inputs)
    outputs = layers.Dense(2, name="after")(middle)
    assert calls(keras.Model(middle, outputs)) == ["after"]


def test_what_computes_keras_masks_is_no_part_of_the_network():
    inputs = keras.Input((5, 3))
    x = layers.Masking(name="masking")(inputs)
    x = layers.BatchNormalization(name="bn")(layers.Dense(4, name="d")(x))
    model = keras.Model(inputs, layers.Dense(2, name="out")(x))
    assert calls(model) == ["masking", "d", "bn", "out"]
    assert tf_synflow.PruningPolicy().score(model)["d/kernel"].all()


def quantised():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="d")])
    model.layers[0].quantize("int8")
    return model


def with_lora():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(4, name="d")])
    model.layers[0].enable_lora(2)
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def around_subclassed():
    inputs = keras.Input((3,))
    return keras.Model(inputs, layers.Dense(2)(Subclassed()(inputs)))


class Doubled(keras.Model):
    """Functional by its looks, but it runs its own `call`."""

    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2)(inputs))

    def call(self, x, training=None, mask=None):
        return 2 * super().call(x)


class Trained(keras.Model):
    """Its copy would lose how it is trained."""

    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2)(inputs))

    def train_step(self, *args):
        return {}


def sharing_a_weight():
    class Tied(layers.Layer):
        def __init__(self, kernel):
            super().__init__(name="two")
            self.kernel = kernel

        def call(self, x):
            return keras.ops.matmul(x, self.kernel)

    first = layers.Dense(3, name="one")
    inputs = keras.Input((3,))
    x = first(inputs)
    return keras.Model(inputs, Tied(first.kernel)(x))


def lambda_that_holds_a_variable():
    held = keras.Variable(np.ones(3, "float32"))
    inputs = keras.Input((3,))
    x = layers.Lambda(lambda x: x * held, output_shape=(3,), name="holds")(inputs)
    return keras.Model(inputs, layers.Dense(2)(x))


@pytest.mark.parametrize(
    ("build", "error", "words"),
    [
        (
            quantised,
            ValueError,
            "'d' .Dense. is quantised .int8.*before model.quantize",
        ),
        (with_lora, ValueError, "'d' .Dense. has LoRA weights"),
        (Subclassed, ValueError, "is a subclassed model .Subclassed."),
        (around_subclassed, ValueError, "is a subclassed model .Subclassed."),
        (Doubled, ValueError, "class Doubled, which has a `call` of its own"),
        (Trained, ValueError, "would lose its class, Trained, with its train_step"),
        (lambda: layers.Dense(2), TypeError, "got a single layer: keras.src.layers"),
        (
            lambda: keras.Sequential([layers.Dense(2)]),
            ValueError,
            "has no input shape yet",
        ),
        (sharing_a_weight, ValueError, "'one' and 'two' share the weight 'kernel'"),
        (lambda_that_holds_a_variable, ValueError, "'holds' .Lambda. .* 'held'"),
        (lambda: keras.optimizers.SGD(), TypeError, "functional Keras model"),
    ],
)
def test_what_cannot_be_pruned_is_refused_in_plain_words(build, error, words):
    with pytest.raises(error, match=words):
        tf_synflow.prune(build(), 2, criterion="magnitude")


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_an_activation_without_a_name_is_refused():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(2, activation=lambda x: 2 * x, name="d")]
    )
    with pytest.raises(ValueError, match="'d' .Dense. cannot be made anew.*no lambda"):
        tf_synflow.prune(model, 2, criterion="magnitude")


def test_a_variable_as_an_argument_is_refused():
    held = keras.Variable(np.ones(3, "float32"), name="held")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(2)(inputs * held))
    with pytest.raises(ValueError, match="is given the variable 'held'"):
        tf_synflow.prune(model, 2, criterion="magnitude")
