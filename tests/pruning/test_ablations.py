import numpy as np
import pytest
from nets import layers, randomise, residual_net

import tf_synflow
from tf_synflow.keras2.imports import keras
from tf_synflow.pruning.ablations import reinitialise, shuffle


def test_a_shuffled_mask_keeps_as_many_in_each_layer_elsewhere():
    masks = tf_synflow.PruningPolicy(iterations=3).masks(randomise(residual_net()), 3)
    before = {name: mask.copy() for name, mask in masks.items()}
    shuffled, again = shuffle(masks, seed=1), shuffle(masks, seed=1)
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, before[name])
        assert shuffled[name].shape == mask.shape and shuffled[name].dtype == bool
        assert shuffled[name].sum() == mask.sum()
        np.testing.assert_array_equal(shuffled[name], again[name])
    assert any((shuffled[name] != masks[name]).any() for name in masks)
    assert any((shuffled[name] != shuffle(masks, 2)[name]).any() for name in masks)


def test_shuffling_is_uniform():
    """Each of the three places of one survivor, a third of the time."""
    mask = {"w": np.array([[True, False, False]])}
    hits = sum(shuffle(mask, seed)["w"] for seed in range(3000))
    np.testing.assert_allclose(hits / 3000, 1 / 3, atol=0.04)


def test_reinitialised_weights_are_new_and_the_masks_the_same():
    model = residual_net()
    pruned = tf_synflow.prune(randomise(model), 3, iterations=3)
    before = [weight.tobytes() for weight in pruned.get_weights()]
    fresh, again = reinitialise(pruned, seed=5), reinitialise(pruned, seed=5)
    other = reinitialise(pruned, seed=6)
    assert [weight.tobytes() for weight in pruned.get_weights()] == before
    masks = tf_synflow.get_masks(pruned)
    for name, mask in tf_synflow.get_masks(fresh).items():
        np.testing.assert_array_equal(mask, masks[name])
        new, same, old, different = (
            tf_synflow.strip(m).get_layer(name.split("/")[0]).kernel.numpy()
            for m in (fresh, again, pruned, other)
        )
        assert (new[~mask] == 0).all()
        np.testing.assert_array_equal(new, same)
        if mask.any():
            assert (new[mask] != old[mask]).all()
            assert (new[mask] != different[mask]).all()
    bn = tf_synflow.strip(fresh).get_layer("bn")
    assert (bn.moving_variance.numpy() == 1).all() and (bn.beta.numpy() == 0).all()


def test_reinitialised_weights_come_from_the_layers_own_initialisers():
    initial = keras.initializers.Constant(0.25)
    model = keras.Sequential(
        [layers.Input((3,)), layers.Dense(4, kernel_initializer=initial)]
    )
    fresh = reinitialise(randomise(model))
    assert (fresh.get_weights()[0] == 0.25).all()


def test_bad_input():
    with pytest.raises(TypeError, match="expected a built"):
        reinitialise("model")


@pytest.mark.parametrize("seed", [None, 3])
def test_weights_are_new_whatever_the_model_was_seeded_with(seed):
    keras.utils.set_random_seed(0)
    initial = keras.initializers.HeNormal(seed=seed)
    dense = layers.Dense(4, kernel_initializer=initial)
    pruned = tf_synflow.prune(keras.Sequential([layers.Input((3,)), dense]), 1)
    for number in (0, 1):
        fresh = reinitialise(pruned, number)
        assert (fresh.get_weights()[0] != pruned.get_weights()[0]).all()


def test_what_was_learned_by_adapt_is_kept():
    normalization = layers.Normalization()
    normalization.adapt(np.float32([[1, 2], [3, 6]]))
    model = keras.Sequential([layers.Input((2,)), normalization, layers.Dense(3)])
    fresh = reinitialise(model)
    np.testing.assert_array_equal(fresh.layers[0](np.float32([[2, 4]])), [[0, 0]])
