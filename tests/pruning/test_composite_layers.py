"""Masks of layers that tfmot's wrapper cannot hold: in training, files and copies."""

import subprocess
import sys

import keras as keras3
import numpy as np
import pytest

import tf_synflow
from tf_synflow.keras2.imports import keras as keras2

KERNELS = [
    "words/embeddings",
    *(f"mha/{p}/kernel" for p in ("query", "key", "value", "attention_output")),
    *(
        f"both/{direction}_lstm/lstm_cell/{kernel}"
        for direction in ("forward", "backward")
        for kernel in ("kernel", "recurrent_kernel")
    ),
    "each/dense/kernel",
    "split/kernel",
    "gru/gru_cell/kernel",
    "gru/gru_cell/recurrent_kernel",
    "head/kernel",
]


@pytest.fixture(params=[keras2, keras3], ids=["keras2", "keras3"])
def keras(request):
    """Either Keras."""
    return request.param


def net(keras):
    layer = keras.layers
    inputs = keras.Input((5,), dtype="int32")
    x = layer.Embedding(12, 8, name="words")(inputs)
    constraint = keras.constraints.MaxNorm(3.0, axis=0)
    mha = layer.MultiHeadAttention(2, 4, kernel_constraint=constraint, name="mha")
    x = layer.Add()([x, mha(x, x)])
    both = layer.LSTM(4, return_sequences=True, name="lstm")
    x = layer.Bidirectional(both, name="both")(x)
    x = layer.TimeDistributed(layer.Dense(6, name="dense"), name="each")(x)
    x = layer.EinsumDense("abc,cd->abd", (None, 6), name="split")(x)
    x = layer.GRU(4, name="gru")(x)
    return keras.Model(inputs, layer.Dense(3, name="head")(x))


def pruned_net(keras):
    keras.utils.set_random_seed(1)
    # With a quarter of the weights at random, too few paths are left to train on.
    return tf_synflow.prune(net(keras), 2, criterion="random")


X = np.random.default_rng(0).integers(0, 12, (24, 5))
Y = np.random.default_rng(1).integers(0, 3, 24)


def compiled(keras, model, optimizer):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    return model


def values(model):
    from tf_synflow import frameworks

    return {n: v.numpy() for n, v in frameworks.read(model).weights.items()}


def back(model, masks):
    """How many pruned weights are not zero."""
    now = values(model)
    return sum(np.count_nonzero(now[name][~mask]) for name, mask in masks.items())


def same(masks, others):
    assert list(masks) == list(others)
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, others[name], name)


def test_names_follow_the_path_in_both_kerases(keras):
    masks = tf_synflow.get_masks(pruned_net(keras))
    assert list(masks) == KERNELS
    assert all(0 < mask.sum() < mask.size for mask in masks.values())


def look(model, masks, found):
    """A callback that looks at the weights after each step."""
    base = keras2 if isinstance(model, keras2.Model) else keras3

    class Look(base.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            found.append(back(model, masks))

    return Look()


@pytest.mark.parametrize("kind", ["adam", "ema", "bfloat16"])
def test_zeros_after_each_of_50_steps(keras, kind):
    if kind == "bfloat16":
        keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = pruned_net(keras)
    finally:
        if kind == "bfloat16":
            keras.mixed_precision.set_global_policy("float32")
    if kind == "ema":
        optimizer = keras.optimizers.SGD(1.0, 0.9, use_ema=True)
    else:
        optimizer = keras.optimizers.Adam(0.01)
    masks, before, found = tf_synflow.get_masks(model), values(model), []
    compiled(keras, model, optimizer)
    watching = [look(model, masks, found), tf_synflow.PruningCallback()]
    model.fit(X, Y, 4, epochs=9, callbacks=watching, verbose=0)
    assert len(found) == 54 and not any(found)
    assert not back(model, masks)
    now = values(model)
    for name, mask in masks.items():  # they were trained
        assert (now[name] != before[name])[mask].mean() > 0.7, name
    # The constraint that the user gave holds too.
    norms = np.sqrt((now["mha/value/kernel"] ** 2).sum(0))
    assert norms.max() <= 3.0 + 1e-6


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_files_have_the_masks_and_training_goes_on(keras, ending, tmp_path):
    model = pruned_net(keras)
    masks = tf_synflow.get_masks(model)
    path = tmp_path / f"pruned.{ending}"
    model.save(path)
    loaded = tf_synflow.load_model(path)
    same(masks, tf_synflow.get_masks(loaded))
    np.testing.assert_array_equal(
        np.asarray(model(X[:4])), np.asarray(loaded(X[:4])), strict=True
    )
    compiled(keras, loaded, keras.optimizers.Adam(0.05))
    for _ in range(5):
        loaded.train_on_batch(X, Y)
    assert not back(loaded, masks)
    again = tmp_path / f"again.{ending}"
    loaded.save(again)
    twice = tf_synflow.load_model(again)
    same(masks, tf_synflow.get_masks(twice))
    assert not back(twice, masks)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_what_keras_alone_loads_is_kept_pruned_by_the_callback(ending, tmp_path):
    """Of tfmot's wrappers, which Keras 2 needs besides, its own scope knows."""
    model = pruned_net(keras3)
    masks = tf_synflow.get_masks(model)
    path = tmp_path / f"pruned.{ending}"
    model.save(path)
    loaded = keras3.models.load_model(path, compile=False)
    same(masks, tf_synflow.get_masks(loaded))
    compiled(keras3, loaded, keras3.optimizers.Adam(0.05))
    loaded.train_on_batch(X, Y)
    assert not back(loaded, masks)
    loaded.fit(X, Y, 8, verbose=0, callbacks=[tf_synflow.PruningCallback()])
    assert not back(loaded, masks)
    same(masks, tf_synflow.get_masks(loaded))


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_a_stripped_file_loads_with_keras_alone(keras, tmp_path):
    model = pruned_net(keras)
    plain = tf_synflow.strip(model)
    assert not back(plain, tf_synflow.get_masks(model))
    with pytest.raises(ValueError, match="no masks"):
        tf_synflow.get_masks(plain)
    path = tmp_path / "plain.keras"
    plain.save(path)
    name = "tf_keras" if keras is keras2 else "keras"
    code = (
        f"import sys, {name}\n"
        f"model = {name}.models.load_model({str(path)!r}, compile=False)\n"
        "assert 'tf_synflow' not in sys.modules\n"
        "print(model.count_params())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) == plain.count_params()


def test_copies_share_nothing_and_may_be_pruned_further(keras):
    model = pruned_net(keras)
    masks = tf_synflow.get_masks(model)
    further = tf_synflow.prune(model, 8, criterion="magnitude")
    new = tf_synflow.get_masks(further)
    assert sum(m.sum() for m in new.values()) < sum(m.sum() for m in masks.values())
    assert not any((new[name] & ~masks[name]).any() for name in masks)
    same(masks, tf_synflow.get_masks(model))
    compiled(keras, further, keras.optimizers.SGD(0.1)).train_on_batch(X, Y)
    assert not back(further, new)
    same(masks, tf_synflow.get_masks(model))
    copy = tf_synflow.apply_masks(net(keras), masks)
    same(masks, tf_synflow.get_masks(copy))


def test_a_plain_model_is_pruned_inside_fit(keras):
    model = compiled(keras, net(keras), keras.optimizers.Adam(0.01))
    callback = tf_synflow.PruningCallback(
        ratio=3, policy=tf_synflow.PruningPolicy("magnitude"), epoch=1
    )
    found = []
    model.fit(X, Y, 8, epochs=3, callbacks=[callback], verbose=0)
    masks = tf_synflow.get_masks(model)
    assert list(masks) == KERNELS and not back(model, masks)
    model.fit(X, Y, 8, callbacks=[look(model, masks, found)], verbose=0)
    assert len(found) == 3 and not any(found)


def test_tfmot_wraps_what_it_can_hold_and_leaves_the_rest():
    from tf_synflow.keras2.imports import tfmot

    policy = tf_synflow.PruningPolicy("magnitude")
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(
        net(keras2), pruning_policy=policy
    )
    names = [layer.name for layer in wrapped.layers if "prune" in layer.name]
    assert names == ["prune_low_magnitude_head"]


def test_depthwise_and_transposed_kernels_on_request(keras):
    layer = keras.layers
    inputs = keras.Input((8, 3))
    x = layer.DepthwiseConv1D(3, name="depthwise")(inputs)
    x = layer.Conv1DTranspose(4, 2, name="transposed")(x)
    x = layer.Reshape((7, 1, 4))(x)
    x = layer.DepthwiseConv2D((3, 1), name="two")(x)
    model = keras.Model(inputs, layer.Dense(2, name="head")(layer.Flatten()(x)))
    kinds = [layer.DepthwiseConv1D, layer.DepthwiseConv2D, layer.Conv1DTranspose]
    for criterion in ("synflow", "magnitude"):
        policy = tf_synflow.PruningPolicy(criterion, layer_types=kinds, progress=False)
        pruned = tf_synflow.prune(model, 2, policy=policy)
        masks = tf_synflow.get_masks(pruned)
        assert list(masks) == [
            "depthwise/depthwise_kernel",
            "transposed/kernel",
            "two/depthwise_kernel",
        ]
        size = sum(mask.size for mask in masks.values())
        assert sum(mask.sum() for mask in masks.values()) == size - size // 2
        rows = [row["name"] for row in tf_synflow.report(pruned).layers]
        assert set(rows) == {*masks, "head/kernel"}
    whole = tf_synflow.PruningPolicy("magnitude", exclude=["depthwise"])
    with pytest.warns(tf_synflow.DenseKernelsWarning, match=r"transposed/kernel \(24"):
        assert list(whole.masks(model, 2)) == ["head/kernel"]


def test_untied_reverse_embeddings_stay_dense_and_are_named(tmp_path):
    """Keras gives them no constraint, so that nothing could hold their mask."""
    layer = keras3.layers
    inputs = keras3.Input((5,), dtype="int32")
    words = layer.ReversibleEmbedding(12, 8, tie_weights=False, name="words")
    model = keras3.Model(inputs, words(words(inputs), reverse=True))
    with pytest.warns(tf_synflow.DenseKernelsWarning, match="words/reverse_embeddings"):
        pruned = tf_synflow.prune(model, 4, criterion="magnitude", progress=False)
    masks = tf_synflow.get_masks(pruned)
    assert {name: mask.sum() for name, mask in masks.items()} == {
        "words/embeddings": 24
    }
    pruned.save(tmp_path / "words.keras")
    loaded = tf_synflow.load_model(tmp_path / "words.keras")
    same(masks, tf_synflow.get_masks(loaded))
    compiled(keras3, loaded, keras3.optimizers.Adam(0.05))
    for _ in range(3):
        loaded.train_on_batch(X, X)
    assert not back(loaded, masks)
