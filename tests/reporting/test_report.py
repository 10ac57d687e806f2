"""Reports against TensorFlow's own profiler, and against counts by hand."""

import contextlib
import io
import json

import keras as keras3
import numpy as np
import pytest
import tensorflow as tf
from nets import images, layers, randomise, residual_net

import tf_synflow
from tf_synflow.keras2.imports import keras

KINDS = {
    "dense": ((5,), layers.Dense(7)),
    "dense on a sequence": ((6, 5), layers.Dense(7)),
    "same": ((9, 8, 3), layers.Conv2D(4, 3, padding="same")),
    "valid": ((9, 8, 3), layers.Conv2D(4, (3, 2))),
    "strides": ((9, 8, 3), layers.Conv2D(4, 3, strides=2, padding="same")),
    "dilation": ((9, 9, 3), layers.Conv2D(4, 3, dilation_rate=2)),
    "groups": ((9, 8, 4), layers.Conv2D(6, 3, groups=2)),
    "1-D": ((9, 3), layers.Conv1D(4, 3, strides=2)),
    "1-D causal": ((9, 3), layers.Conv1D(4, 3, padding="causal")),
    "3-D": ((5, 6, 7, 2), layers.Conv3D(3, 2)),
    "separable": ((9, 8, 3), layers.SeparableConv2D(4, 3, depth_multiplier=2)),
    "transposed": ((4, 5, 3), layers.Conv2DTranspose(2, 3, strides=2)),
}


def profiled(model):
    """Multiply-adds of one input, by TensorFlow's profiler."""
    signature = [tf.TensorSpec((1, *t.shape[1:]), t.dtype) for t in model.inputs]
    call = tf.function(lambda *x: model(x if len(x) > 1 else x[0], training=False))
    graph = call.get_concrete_function(*signature).graph
    options = tf.compat.v1.profiler.ProfileOptionBuilder.float_operation()
    options |= {"output": "none"}
    with contextlib.redirect_stdout(io.StringIO()):
        found = tf.compat.v1.profiler.profile(graph, cmd="op", options=options)
    kinds = ("Conv2D", "Conv3D", "MatMul", "DepthwiseConv2dNative")

    def count(node):
        own = node.float_ops if node.name in kinds else 0
        return own + sum(map(count, node.children))

    return count(found) // 2


def one_layer(kind):
    shape, layer = KINDS[kind]
    inputs = keras.Input(shape)
    return keras.Model(inputs, type(layer).from_config(layer.get_config())(inputs))


# The profiler counts of a dilated or 3-D convolution what it does otherwise, and of a
# transposed one nothing; those are counted by hand below.
@pytest.mark.parametrize(
    "kind", [k for k in KINDS if k not in ("dilation", "3-D", "transposed", "groups")]
)
def test_multiply_adds_against_the_profiler(kind):
    model = one_layer(kind)
    assert tf_synflow.report(model).totals["macs"] == profiled(model) > 0


@pytest.mark.parametrize(
    ("kind", "macs"),
    [
        ("dense on a sequence", 6 * 5 * 7),
        ("same", 9 * 8 * 4 * 3 * 3 * 3),
        ("valid", 7 * 7 * 4 * 3 * 2 * 3),
        ("strides", 5 * 4 * 4 * 3 * 3 * 3),
        ("dilation", 5 * 5 * 4 * 3 * 3 * 3),  # 9 - 2 * 2 places
        ("groups", 7 * 6 * 6 * 3 * 3 * 2),  # each output channel reads 4 / 2
        ("3-D", 4 * 5 * 6 * 3 * 2 * 2 * 2 * 2),
        ("separable", 7 * 6 * (3 * 3 * 6 + 6 * 4)),
        ("transposed", 4 * 5 * 3 * 3 * 3 * 2),  # each input, through each tap
    ],
)
def test_multiply_adds_by_hand(kind, macs):
    assert tf_synflow.report(one_layer(kind)).totals["macs"] == macs


def test_depthwise_layers_count_though_they_cannot_be_pruned():
    inputs = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, strides=2, padding="same", name="depthwise")(inputs)
    model = keras.Model(inputs, layers.Conv2D(4, 1, name="pointwise")(x))
    found = tf_synflow.report(tf_synflow.prune(model, 3, criterion="magnitude"))
    assert [row["name"] for row in found.layers] == ["pointwise/kernel"]
    assert found.totals["macs"] == profiled(model) == 16 * (27 + 12)
    assert found.totals["sparse_macs"] == 16 * (27 + 4)
    assert found.totals["prunable"] == {
        "size": 12,
        "kept": 4,
        "density": 4 / 12,
        "compression": 3,
    }
    assert found.totals["parameters"]["size"] == model.count_params() == 12 + 4 + 27 + 3
    assert found.totals["parameters"]["kept"] == 4 + 4 + 27 + 3


def test_shared_layers_and_nested_models_count_once_for_each_call():
    block_in = keras.Input((6, 6, 4))
    block = keras.Model(block_in, layers.Conv2D(4, 3, padding="same")(block_in))
    inputs = keras.Input((6, 6, 4))
    model = keras.Model(inputs, block(block(block(inputs))))
    found = tf_synflow.report(model)
    assert len(found.layers) == 1
    assert found.totals["macs"] == profiled(model) == 3 * 36 * 16 * 9
    assert found.totals["prunable"]["size"] == 16 * 9


class Turned(keras.layers.Layer):
    """Nobody knows how often it uses its kernel."""

    def build(self, shape):
        self.kernel = self.add_weight("kernel", (shape[-1], shape[-1]))

    def call(self, x):
        return tf.matmul(x, self.kernel)


def test_recurrent_layers_count_each_time_step_and_unknown_ones_are_named():
    inputs = keras.Input((7, 3))
    x = layers.LSTM(5, return_sequences=True)(inputs)
    x = layers.Bidirectional(layers.GRU(4))(x)
    x = Turned(name="both")(x)
    model = keras.Model(inputs, layers.Dense(2)(x))
    found = tf_synflow.report(model)
    assert found.totals["uncounted"] == ["both"]
    recurrent = 7 * (3 * 20 + 5 * 20) + 2 * 7 * (5 * 12 + 4 * 12)
    assert found.totals["macs"] == recurrent + 8 * 2
    assert found.totals["connected"] is None and found.totals["effective"] is None
    assert "not known" in found.notes[0] and "both" in found.notes[1]
    assert "Multiply-adds leave out: both" in str(found)


def test_layers_inside_others_count_as_they_do_by_themselves():
    inputs = keras.Input((3, 4, 4, 2))
    x = layers.TimeDistributed(layers.Conv2DTranspose(5, 3, 2, "same"))(inputs)
    found = tf_synflow.report(keras.Model(inputs, x))
    assert found.totals["macs"] == 3 * 16 * 9 * 2 * 5 and not found.totals["uncounted"]
    inputs = keras.Input((3, 7, 2))
    x = layers.TimeDistributed(layers.LSTM(5))(inputs)
    found = tf_synflow.report(keras.Model(inputs, x))
    assert found.totals["macs"] == 3 * 7 * 20 * (2 + 5)
    inputs = keras.Input((3, 4, 4, 2))
    x = layers.Bidirectional(layers.ConvLSTM2D(5, 3, 2), name="both")(inputs)
    found = tf_synflow.report(keras.Model(inputs, x))
    assert found.totals["uncounted"] == ["both"]


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_that_score_words_are_multiplied(tied):
    inputs = keras3.Input((7,), dtype="int32")
    words = keras3.layers.ReversibleEmbedding(11, 4, tie_weights=tied)
    model = keras3.Model(inputs, words(words(inputs), reverse=True))
    assert tf_synflow.report(model).totals["macs"] == 7 * 11 * 4


def test_channels_of_attention_are_the_units_of_all_heads():
    inputs = keras.Input((5, 8))
    x = layers.MultiHeadAttention(3, 4, value_dim=2, name="mha")(inputs, inputs)
    x = layers.EinsumDense("abc,cde->abde", (None, 3, 2), name="split")(x)
    model = keras.Model(inputs, x)
    masks = {name: np.ones(mask.shape, bool) for name, mask in whole_of(model).items()}
    masks["mha/query/kernel"][:, 1, 2] = False
    masks["split/kernel"][:, 2, 1] = False
    found = tf_synflow.report(tf_synflow.apply_masks(model, masks))
    rows = {row["name"]: row for row in found.layers}
    channels = {name: row["channels"] for name, row in rows.items()}
    assert list(channels.values()) == [12, 12, 6, 8, 6]
    assert rows["mha/query/kernel"]["dead_channels"] == 1
    assert rows["split/kernel"]["dead_channels"] == 1


def whole_of(model):
    return tf_synflow.PruningPolicy("magnitude").score(model)


def test_resnet50_as_the_literature_has_it():
    """4.1 G multiply-adds at 224x224."""
    model = tf_synflow.models.build("resnet50", (224, 224, 3), 1000)
    macs = tf_synflow.report(model).totals["macs"]
    assert macs == pytest.approx(4.1e9, rel=0.02)
    assert macs == profiled(model)


def test_pruned_stripped_and_masked_by_zeros_give_the_same():
    pruned = tf_synflow.prune(randomise(residual_net()), 5, iterations=3)
    found = tf_synflow.report(pruned).to_dict()
    stripped = tf_synflow.report(tf_synflow.strip(pruned)).to_dict()
    assert found == stripped
    masks = tf_synflow.get_masks(pruned)
    assert [row["name"] for row in found["layers"]] == list(masks)
    for row, mask in zip(found["layers"], masks.values(), strict=True):
        assert row["shape"] == list(mask.shape)
        assert (row["kept"], row["size"]) == (mask.sum(), mask.size)
        assert row["density"] == mask.mean()
        assert row["sparse_macs"] * row["size"] == row["macs"] * row["kept"]
    assert found["totals"]["connected"]
    kept = sum(int(mask.sum()) for mask in masks.values())
    assert found["totals"]["prunable"]["kept"] == kept
    size = sum(mask.size for mask in masks.values())
    assert found["totals"]["prunable"]["compression"] == size / kept


def test_a_plain_model_is_whole():
    totals = tf_synflow.report(randomise(residual_net())).totals
    assert totals["prunable"]["density"] == totals["effective_density"] == 1
    assert totals["speedup"] == 1 and totals["dead_channels"] == 0
    assert totals["channels"] == 3 + 3 + 4 + 4


def test_dead_channels_and_emptied_layers():
    model = randomise(residual_net())
    masks = tf_synflow.PruningPolicy("magnitude").masks(model, 1)
    masks["conv1/kernel"][..., 1] = False  # nothing into the channel ...
    masks["conv2/kernel"][:] = False
    found = tf_synflow.report(tf_synflow.apply_masks(model, masks))
    rows = {row["name"]: row for row in found.layers}
    assert rows["conv1/kernel"]["dead_channels"] == 1
    assert rows["conv2/kernel"]["dead_channels"] == 3
    # ... so nothing of it goes on either: 2x2 taps to 4 channels.
    assert rows["conv3/kernel"]["effective"] == 48 - 16
    assert rows["conv3/kernel"]["kept"] == 48
    assert found.totals["emptied"] == ["conv2/kernel"]
    assert found.totals["connected"]
    assert "No weight is kept in: conv2/kernel" in str(found)
    masks["conv3/kernel"][:] = False
    cut = tf_synflow.report(tf_synflow.apply_masks(model, masks))
    assert not cut.totals["connected"] and cut.totals["effective"] == 0
    assert "NOT CONNECTED" in str(cut)


def test_synflow_has_hardly_a_weight_off_all_paths_and_random_many():
    model = tf_synflow.models.ResNet20()
    share = {}
    for criterion in ("synflow", "random"):
        pruned = tf_synflow.prune(model, 100, criterion=criterion)
        totals = tf_synflow.report(pruned).totals
        share[criterion] = totals["effective"] / totals["prunable"]["kept"]
    assert share["synflow"] > 0.98
    assert share["random"] < 0.9


def test_transposed_channels_are_the_last_but_one_axis():
    inputs = keras.Input((4, 4, 2))
    x = layers.Conv2DTranspose(3, 2, name="up")(inputs)
    model = randomise(keras.Model(inputs, layers.Dense(5, name="fc")(x)))
    masks = tf_synflow.PruningPolicy("magnitude").masks(model, 1)
    masks["up/kernel"][:, :, 1] = False
    found = tf_synflow.report(tf_synflow.apply_masks(model, masks)).layers
    assert (found[0]["channels"], found[0]["dead_channels"]) == (3, 1)


def test_it_prints_saves_and_draws(tmp_path):
    found = tf_synflow.report(tf_synflow.prune(residual_net(), 4, iterations=2))
    assert json.loads(found.to_json()) == found.to_dict()
    lines = str(found).splitlines()
    assert lines[0] == "Model: residual_net"
    assert lines[1].split()[:4] == ["weight", "shape", "kept", "of"]
    assert "All parameters:" in str(found) and "Prunable weights: 44 of 175" in str(
        found
    )
    for ending, magic in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
        found.plot(tmp_path / f"picture{ending}")
        assert (tmp_path / f"picture{ending}").read_bytes().startswith(magic)
    with pytest.raises(ValueError, match=r"ends in .png or .svg, got 'a.bmp'"):
        found.plot("a.bmp")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        found.plot(tmp_path / "nowhere" / "a.png")


def test_it_changes_nothing():
    model = randomise(residual_net())
    model.compile("sgd", "mse")
    before = [weight.tobytes() for weight in model.get_weights()]
    predictions = model.predict(images(model, 3)[0], verbose=0)
    tf_synflow.report(model)
    assert [weight.tobytes() for weight in model.get_weights()] == before
    np.testing.assert_array_equal(
        model.predict(images(model, 3)[0], verbose=0), predictions
    )


@pytest.mark.parametrize(
    ("thing", "kind", "message"),
    [
        ("model.keras", TypeError, "expected a built"),
        (layers.Dense(3), TypeError, "got a single layer"),
        (
            keras.Sequential([layers.Input((3,)), layers.ReLU()]),
            ValueError,
            "no weight",
        ),
    ],
)
def test_what_is_no_prunable_model_is_refused(thing, kind, message):
    with pytest.raises(kind, match=message):
        tf_synflow.report(thing)
