import numpy as np
import pytest
import tensorflow as tf
from nets import layers, residual_net

import tf_synflow
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras, tfmot


def names(model):
    return list(tf_synflow.PruningPolicy(criterion="magnitude").score(model))


def test_names_follow_the_order_of_application():
    inputs = keras.Input((4,))
    late, early = layers.Dense(4, name="z_late"), layers.Dense(4, name="a_early")
    x = layers.Dense(4, name="m_first")(inputs)
    model = keras.Model(inputs, late(early(x)))
    assert names(model) == ["m_first/kernel", "a_early/kernel", "z_late/kernel"]


def test_nested_models_are_joined_with_slashes_and_a_shared_layer_is_named_once():
    shared = layers.Dense(3, name="shared")
    inner = keras.Sequential(
        [layers.Dense(3, name="d", input_shape=(3,))], name="inner"
    )
    middle_in = keras.Input((3,))
    middle = keras.Model(middle_in, shared(inner(middle_in)), name="middle")
    inputs = keras.Input((3,))
    outputs = layers.Dense(2, name="out")(shared(middle(inputs)))
    model = keras.Model(inputs, outputs)
    assert names(model) == [
        "middle/inner/d/kernel",
        "middle/shared/kernel",
        "out/kernel",
    ]
    assert [call.name for call in read(model).calls].count("middle/shared") == 2


def test_a_nested_model_called_twice_gives_its_calls_twice():
    inner = keras.Sequential(
        [layers.Dense(3, name="d", input_shape=(3,))], name="inner"
    )
    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(inner(inputs)))
    assert [call.name for call in read(model).calls] == ["inner/d", "inner/d"]


def test_pruned_and_reloaded_models_have_the_same_names(tmp_path):
    model = residual_net()
    pruned = tf_synflow.prune(model, 4, iterations=2)
    pruned.save(tmp_path / "pruned.keras")
    with tfmot.sparsity.keras.prune_scope():
        again = keras.models.load_model(tmp_path / "pruned.keras")
    assert names(model) == names(pruned) == names(again)
    assert names(tf_synflow.strip(pruned)) == names(model)


def test_a_sequential_model_built_late_is_taken():
    model = keras.Sequential([layers.Dense(3, name="a"), layers.Dense(2, name="b")])
    model.build((None, 4))
    assert names(model) == ["a/kernel", "b/kernel"]
    assert tf_synflow.prune(model, 2).predict(np.ones((1, 4)), verbose=0).shape == (
        1,
        2,
    )


def test_a_class_that_keeps_its_graph_keeps_its_training_step():
    class Own(keras.Model):
        def train_step(self, data):
            return {"loss": 7.0}

    inputs = keras.Input((3,))
    model = Own(inputs, layers.Dense(2)(inputs))
    pruned = tf_synflow.prune(model, 2, iterations=2)
    assert type(pruned) is Own
    pruned.compile("sgd", "mse")
    assert pruned.fit(np.ones((1, 3)), np.ones((1, 2)), verbose=0).history["loss"] == [
        7
    ]


class Doubled(keras.Model):
    """Functional by its looks, but it runs its own `call`."""

    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2)(inputs))

    def call(self, x, training=None):
        return 2 * super().call(x)


class Unclonable(keras.Model):
    def __init__(self):
        inputs = keras.Input((3,))
        super().__init__(inputs, layers.Dense(2)(inputs))


def test_a_copy_that_would_lose_the_class_is_refused():
    with pytest.raises(ValueError, match="would lose its class, Unclonable"):
        tf_synflow.prune(Unclonable(), 2, iterations=2)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x):
        return self.dense(x)


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (lambda: "model", TypeError, "expected a built Sequential or functional"),
        (lambda: None, TypeError, "got builtins.NoneType"),
        (lambda: layers.Dense(2, name="fc"), TypeError, "got a single layer: .* 'fc'"),
        (lambda: tf.ones(3), TypeError, "expected a built Sequential"),
        (Subclassed, ValueError, "subclassed model .*functional API"),
        (Doubled, ValueError, "class Doubled, which has a `call` of its own"),
        (lambda: keras.Sequential([layers.Dense(2)]), ValueError, "no input shape yet"),
    ],
)
def test_what_is_no_model_is_refused_with_the_way_out(make, kind, message):
    thing = make()
    for use in (
        lambda: tf_synflow.prune(thing, 2),
        lambda: tf_synflow.PruningPolicy().score(thing),
        lambda: tf_synflow.get_masks(thing),
        lambda: tf_synflow.apply_masks(thing, {}),
        lambda: tf_synflow.strip(thing),
    ):
        with pytest.raises(kind, match=message):
            use()


def test_a_subclassed_model_inside_a_functional_one_is_refused():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, Subclassed()(inputs))
    with pytest.raises(ValueError, match="subclassed model"):
        tf_synflow.prune(model, 2)


def test_two_layers_with_one_path_are_refused():
    inner = keras.Sequential([layers.Dense(3, name="b", input_shape=(3,))], name="a")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, layers.Dense(3, name="a/b")(inner(inputs)))
    with pytest.raises(ValueError, match="two layers of the model have the path 'a/b'"):
        tf_synflow.prune(model, 2)
