"""Effective density against a search along every path, edge by edge."""

import warnings

import numpy as np
import pytest
from nets import layers, randomise, residual_net

import tf_synflow
from tf_synflow.flow.paths import on_paths
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.selection import emptied


def random_net(generator):
    """Convolutions, pooling, Add, Concatenate, strides: images of 5x5."""
    inputs = x = keras.Input((5, 5, int(generator.integers(1, 3))))
    for _ in range(int(generator.integers(1, 4))):
        kind = generator.integers(5)
        width = int(generator.integers(1, 4))
        padding = str(generator.choice(["same", "valid"]))
        size = int(generator.integers(1, min(3, x.shape[1] + 1)))
        convolution = layers.Conv2D(
            width, size, strides=int(generator.integers(1, 3)), padding=padding
        )
        if kind == 0:
            x = layers.Add()([x, layers.Conv2D(x.shape[-1], 1)(x)])
        elif kind == 1:
            x = layers.Concatenate()([x, layers.Conv2D(width, 2, padding="same")(x)])
        elif kind == 2 and x.shape[1] > 2:
            x = layers.MaxPooling2D(2, padding=padding)(x)
        else:
            x = layers.BatchNormalization()(convolution(x))
    x = layers.Flatten()(x)
    return keras.Model(inputs, layers.Dense(2)(x))


def edges_of(model, masks):
    """(unit from, unit to, weight or None) for all edges that are not pruned."""
    graph, edges = read(model), []

    def signal(number):
        shape = graph.shapes[number][1:]
        return [(number, *index) for index in np.ndindex(*shape)]

    for call in graph.calls:
        layer, (out,) = call.layer, call.outputs
        kind, shape = type(layer).__name__, graph.shapes[out][1:]
        if kind in ("Conv2D", "MaxPooling2D"):
            (into,), height = call.inputs, graph.shapes[call.inputs[0]][1]
            window = layer.kernel_size if kind == "Conv2D" else layer.pool_size
            for place in np.ndindex(*shape):
                for tap in np.ndindex(*window):
                    # Padding as TensorFlow has it: what is odd goes after the end.
                    total = max((shape[0] - 1) * layer.strides[0] + window[0], height)
                    before = (total - height) // 2 if layer.padding == "same" else 0
                    row, column = (
                        place[a] * layer.strides[a] + tap[a] - before for a in (0, 1)
                    )
                    if not (0 <= row < height and 0 <= column < height):
                        continue
                    if kind == "MaxPooling2D":
                        source = (into, row, column, place[2])
                        edges.append((source, (out, *place), None))
                        continue
                    name = f"{call.name}/kernel"
                    for channel in range(layer.kernel.shape[2]):
                        index = (*tap, channel, place[2])
                        if masks[name][index]:
                            source = (into, row, column, channel)
                            edges.append((source, (out, *place), (name, index)))
        elif kind == "Dense":
            name = f"{call.name}/kernel"
            for i, j in np.argwhere(masks[name]).tolist():
                edges.append(((call.inputs[0], i), (out, j), (name, (i, j))))
        elif kind == "Flatten":
            pairs = zip(signal(call.inputs[0]), signal(out), strict=True)
            edges += [(a, b, None) for a, b in pairs]
        elif kind == "Concatenate":
            offset = 0
            for into in call.inputs:
                for unit in signal(into):
                    there = (out, *unit[1:-1], unit[-1] + offset)
                    edges.append((unit, there, None))
                offset += graph.shapes[into][-1]
        else:
            assert kind in ("Add", "BatchNormalization")
            for into in call.inputs:
                edges += [(u, (out, *u[1:]), None) for u in signal(into)]
    return graph, signal, edges


def search(model, masks):
    """Masks of the weights on a path, and whether there is a path at all."""
    graph, signal, edges = edges_of(model, masks)

    def reached(starts, arrows):
        found, left = set(starts), list(starts)
        following = {}
        for a, b in arrows:
            following.setdefault(a, []).append(b)
        while left:
            for unit in following.get(left.pop(), ()):
                if unit not in found:
                    found.add(unit)
                    left.append(unit)
        return found

    forwards = reached(signal(graph.inputs[0]), [(a, b) for a, b, _ in edges])
    ends = signal(graph.outputs[0])
    backwards = reached(ends, [(b, a) for a, b, _ in edges])
    found = {name: np.zeros(mask.shape, bool) for name, mask in masks.items()}
    for a, b, weight in edges:
        if weight is not None and a in forwards and b in backwards:
            found[weight[0]][weight[1]] = True
    return found, any(unit in forwards for unit in ends)


@pytest.mark.parametrize("block", range(10))
def test_effective_weights_of_two_hundred_random_networks(block):
    cut = 0
    for seed in range(20 * block, 20 * block + 20):
        keras.backend.clear_session()
        generator = np.random.default_rng(seed)
        model = random_net(generator)
        scores = tf_synflow.PruningPolicy("magnitude").score(model)
        density = generator.uniform(0.1, 0.9)
        masks = {n: generator.random(s.shape) < density for n, s in scores.items()}
        found, connected = on_paths(read(model), masks)
        expected, path = search(model, masks)
        assert connected == path
        for name, mask in expected.items():
            np.testing.assert_array_equal(found[name], mask, err_msg=f"{seed} {name}")
            cut += np.count_nonzero(masks[name] & ~mask)
    assert cut > 0


def test_nothing_overflows_however_deep():
    """A chain of 200 layers of width 30: 30^199 paths, past any float32."""
    inputs = x = keras.Input((30,))
    for _ in range(200):
        x = layers.Dense(30)(x)
    model = keras.Model(inputs, x)
    masks = tf_synflow.PruningPolicy("magnitude").masks(model, 1)
    first = next(iter(masks))
    masks[first][:, 3] = False  # nothing gets into one unit
    found, connected = on_paths(read(model), masks)
    second = list(masks)[1]
    assert connected and not found[second][3].any()
    assert sum(mask.sum() for mask in found.values()) == 200 * 900 - 60


def test_every_output_must_be_reached():
    inputs = keras.Input((3,))
    outputs = [layers.Dense(2, name=name)(inputs) for name in "ab"]
    model = keras.Model(inputs, outputs)
    masks = {"a/kernel": np.ones((3, 2), bool), "b/kernel": np.zeros((3, 2), bool)}
    found, connected = on_paths(read(model), masks)
    assert not connected and found["a/kernel"].all()


def with_branch():
    """A main path of one layer, and a side branch that is all small weights."""
    inputs = keras.Input((4,))
    main = layers.Dense(4, use_bias=False, name="main")(inputs)
    side = layers.Dense(4, use_bias=False, name="side")(inputs)
    x = layers.Add()([main, side])
    model = randomise(
        keras.Model(inputs, layers.Dense(2, use_bias=False, name="end")(x))
    )
    kernel = model.get_layer("side").kernel
    kernel.assign(kernel * 1e-6)
    return model


def prune(model, ratio, **settings):
    return tf_synflow.prune(model, ratio, criterion="magnitude", **settings)


def test_a_collapsed_side_branch_is_told_from_a_cut_network():
    with pytest.warns(
        tf_synflow.LayerCollapseWarning, match="side/kernel: side branch"
    ):
        prune(with_branch(), 2)
    model = residual_net()
    conv3 = model.get_layer("conv3").kernel
    conv3.assign(conv3 * 1e-6)
    with pytest.warns(
        tf_synflow.LayerCollapseWarning, match="conv3/kernel: no path is"
    ):
        prune(model, 2)
    with pytest.raises(tf_synflow.LayerCollapseError, match="no path is left"):
        prune(model, 2, on_collapse="raise")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        prune(model, 2, on_collapse="ignore")
        assert emptied(tf_synflow.get_masks(prune(with_branch(), 1.2))) == []
    assert not [w for w in caught if "pruning has" in str(w.message)]


def test_what_was_empty_before_is_not_mentioned_again():
    pruned = prune(with_branch(), 2, on_collapse="ignore")
    assert emptied(tf_synflow.get_masks(pruned)) == ["side/kernel"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        further = prune(pruned, 2.2)
    assert emptied(tf_synflow.get_masks(further)) == ["side/kernel"]
    assert not [w for w in caught if w.category is tf_synflow.LayerCollapseWarning]


def test_where_paths_are_not_known_it_says_so():
    class Unknown(layers.Layer):
        def call(self, x):
            return x * 2

    inputs = keras.Input((4,))
    x = Unknown()(layers.Dense(4, name="a")(inputs))
    model = randomise(keras.Model(inputs, layers.Dense(2, name="b")(x)))
    kernel = model.get_layer("b").kernel
    kernel.assign(kernel * 1e-6)
    with pytest.warns(tf_synflow.LayerCollapseWarning, match="is not known"):
        prune(model, 2)


def test_bad_action():
    with pytest.raises(
        ValueError, match="unknown on_collapse 'stop'; there are 'warn'"
    ):
        tf_synflow.PruningPolicy(on_collapse="stop")
