"""What holds for any network, ratio and criterion: random ones of each."""

import math
from fractions import Fraction

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from nets import images, layers, randomise

import tf_synflow
from tf_synflow.criteria import CRITERIA, DATA_FREE
from tf_synflow.keras2.imports import keras


@st.composite
def networks(draw):
    """Convolutions of several kinds, branches that join, a nested model, a head."""
    inputs = x = keras.Input((6, 6, draw(st.integers(1, 3))))
    for _ in range(draw(st.integers(1, 4))):
        width = draw(st.integers(1, 5))
        kind = draw(st.sampled_from(["conv", "add", "concat", "separable", "nested"]))
        if kind == "conv":
            strides = draw(st.integers(1, 2))
            x = layers.Conv2D(width, 3, strides, "same", activation="relu")(x)
            x = layers.BatchNormalization()(x)
        elif kind == "add":
            x = layers.Add()([x, layers.Conv2D(x.shape[-1], 1)(x)])
        elif kind == "concat":
            x = layers.Concatenate()([x, layers.Conv2D(width, 1)(x)])
        elif kind == "separable":
            x = layers.SeparableConv2D(width, 3, padding="same", activation="tanh")(x)
        else:
            inner = keras.Input(x.shape[1:])
            block = keras.Model(inner, layers.Conv2D(width, 2, padding="same")(inner))
            x = block(x)
    model = keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))
    return randomise(model, seed=draw(st.integers(0, 99)))


def exactly_kept(size, ratio):
    """The count of design: in fractions, ratio read as the decimal it is written as."""
    ratio = Fraction(str(ratio))
    removed = size * (1 - 1 / ratio) if ratio >= 1 else size * ratio
    return size - math.floor(removed)


@settings(
    max_examples=16,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(
    model=networks(),
    criterion=st.sampled_from(sorted(CRITERIA)),
    ratio=st.sampled_from([0, 0.3, 0.777, 1, 1.7, 3, 5.5]),
    iterations=st.integers(1, 4),
)
def test_whatever_is_pruned(model, criterion, ratio, iterations, tmp_path_factory):
    before = [variable.numpy() for variable in model.weights]
    data = None if criterion in DATA_FREE else images(model, 6)
    policy = tf_synflow.PruningPolicy(criterion, iterations=iterations, progress=False)
    pruned = tf_synflow.prune(model, ratio, policy=policy, data=data)
    masks = tf_synflow.get_masks(pruned)

    # The model is as it was, to the bit, and what came out shares nothing with it.
    for variable, value in zip(model.weights, before, strict=True):
        assert variable.numpy().tobytes() == value.tobytes()
    assert not {id(v) for v in model.weights} & {id(v) for v in pruned.weights}

    # Just as many weights are kept as were asked for; and they are what they were.
    size = sum(mask.size for mask in masks.values())
    assert sum(int(mask.sum()) for mask in masks.values()) == exactly_kept(size, ratio)
    plain = tf_synflow.strip(pruned)
    places = {variable.name: i for i, variable in enumerate(model.weights)}
    assert [v.name for v in plain.weights] == list(places)
    kernels = [v for v in plain.weights if "kernel" in v.name]
    kernels = [v for v in kernels if "depthwise" not in v.name]
    assert len(kernels) == len(masks)
    for variable in plain.weights:
        old = before[places[variable.name]]
        name = next((n for n in masks if variable.name.startswith(n + ":")), None)
        name = name or next((n for n in masks if n.endswith(variable.name[:-2])), None)
        kept = np.ones(old.shape, bool) if name is None else masks[name]
        np.testing.assert_array_equal(variable.numpy(), np.where(kept, old, 0))

    # Twice the same, whatever the criterion; into a file and back; onto another copy.
    again = policy.masks(model, ratio, data)
    path = tmp_path_factory.mktemp("masks") / "masks.npz"
    tf_synflow.save_masks(path, masks)
    loaded = tf_synflow.load_masks(path)
    applied = tf_synflow.get_masks(tf_synflow.apply_masks(model, loaded))
    for other in (again, loaded, applied):
        assert list(other) == list(masks)
        assert all((other[name] == masks[name]).all() for name in masks)

    # The report counts what numpy counts.
    rows = tf_synflow.report(pruned).layers
    assert [(r["name"], r["kept"], r["size"]) for r in rows] == [
        (name, np.count_nonzero(mask), mask.size) for name, mask in masks.items()
    ]

    # Once pruned, always pruned; also by a training step.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    pruned.compile("sgd", loss, run_eagerly=True)
    pruned.train_on_batch(*images(model, 4))
    further = tf_synflow.get_masks(
        tf_synflow.prune(pruned, 6, policy=policy, data=data)
    )
    trained = tf_synflow.strip(pruned).weights
    trained = {v.name: v.numpy() for v in trained}
    for name, mask in masks.items():
        assert not (further[name] & ~mask).any()
    total = sum(int(np.count_nonzero(v)) for n, v in trained.items() if "kernel" in n)
    depthwise = sum(v.size for n, v in trained.items() if "depthwise" in n)
    assert total <= exactly_kept(size, ratio) + depthwise
