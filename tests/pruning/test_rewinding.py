import numpy as np
import pytest
from nets import images, randomise, residual_net

import tf_synflow
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.counts import kept_count
from tf_synflow.masks.selection import flat

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def values(model):
    """Name to value of all weights, pruning wrappers taken off."""
    return {n: v.numpy() for n, v in read(model).weights.items()}


def expected_at(level, initial, seen):
    """What the network must be at the start of a level: the first weights, masked."""
    masks = seen[level]
    return {
        name: np.where(masks[name], value, np.float32(0)) if name in masks else value
        for name, value in initial.items()
    }


@pytest.mark.parametrize("scope", ["global", "local"])
def test_every_level_starts_from_the_initial_weights_bit_for_bit(scope):
    model = randomise(residual_net())
    initial = values(model)
    x, y = images(model, 40)
    starts, masks, trained = [], [], []

    def train(network):
        starts.append(values(network))
        masks.append(tf_synflow.get_masks(network))
        network.compile(keras.optimizers.SGD(0.05, momentum=0.9), LOSS)
        network.fit(x, y, epochs=2, verbose=0, callbacks=[tf_synflow.PruningCallback()])
        trained.append(values(network))

    policy = tf_synflow.PruningPolicy("magnitude", scope=scope)
    final = tf_synflow.prune_with_rewinding(model, 8, train, 3, policy=policy)
    starts.append(values(final))
    masks.append(tf_synflow.get_masks(final))
    assert len(starts) == 4
    for level in range(4):
        wanted = expected_at(level, initial, masks)
        for name, value in starts[level].items():
            assert value.tobytes() == wanted[name].tobytes()
    for name, value in values(model).items():
        assert value.tobytes() == initial[name].tobytes()
    size = sum(mask.size for mask in masks[0].values())
    counts = [sum(mask.sum() for mask in own.values()) for own in masks]
    if scope == "global":
        assert counts == [size, *(kept_count(size, 8 ** (k / 3)) for k in (1, 2, 3))]
    for level in range(3):  # the smallest of what was trained are gone
        before, after = flat(masks[level]), flat(masks[level + 1])
        assert not (after & ~before).any()
        if scope == "global":
            weights = flat({n: np.abs(trained[level][n]) for n in masks[level]})
            assert weights[after].min() > weights[before & ~after].max()
    changed = [(trained[0][n] != initial[n]).any() for n in ("fc/kernel", "bn/gamma")]
    assert all(changed)


def test_a_pruned_model_goes_on_and_other_criteria_serve_too():
    model = randomise(residual_net())
    pruned = tf_synflow.prune(model, 2, iterations=2)
    data = images(model, 20)
    policy = tf_synflow.PruningPolicy("snip", progress=False)
    calls = []
    final = tf_synflow.prune_with_rewinding(
        pruned, 6, calls.append, 2, policy=policy, data=data
    )
    assert len(calls) == 2
    before, after = tf_synflow.get_masks(pruned), tf_synflow.get_masks(final)
    assert all((after[name] <= before[name]).all() for name in before)
    size = sum(mask.size for mask in after.values())
    assert sum(mask.sum() for mask in after.values()) == kept_count(size, 6)


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"levels": 0}, ValueError, "levels must be at least 1, got 0"),
        ({"levels": 1.5}, TypeError, "levels must be a whole number, got 1.5"),
        ({"train": None}, TypeError, "train must be a function"),
        ({"ratio": -1}, ValueError, "got -1"),
        ({"ratio": 1e9}, ValueError, "the highest ratio"),
        ({"policy": tf_synflow.PruningPolicy("snip")}, ValueError, "needs data"),
    ],
)
def test_bad_input_is_refused_before_anything_is_trained(settings, kind, message):
    calls = []
    settings = {"ratio": 4, "train": calls.append, "levels": 2, **settings}
    with pytest.raises(kind, match=message):
        tf_synflow.prune_with_rewinding(residual_net(), **settings)
    assert not calls
