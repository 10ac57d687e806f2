"""Kernels that stay dense are named and counted."""

import keras
import pytest

import tf_synflow

layers = keras.layers


@keras.saving.register_keras_serializable("test_dense")
class Own(layers.Layer):
    """A layer whose kernel nobody knows."""

    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 8), name="w")

    def call(self, x):
        return x @ self.w


tf_synflow.register_linear_part(Own, lambda layer, x, w: x @ w["w"])


def net():
    inputs = keras.Input((6, 6, 2))
    x = layers.Conv2D(8, 3, name="conv")(inputs)  # 144 and 8
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)  # 72 and 8
    x = layers.Flatten()(x)  # 32
    x = Own(name="own")(x)  # 256
    return keras.Model(inputs, layers.Dense(4, name="head")(x))  # 32 and 4


@pytest.mark.parametrize("criterion", ["synflow", "magnitude"])
def test_prune_warns_with_names_and_numbers(criterion):
    with pytest.warns(tf_synflow.DenseKernelsWarning) as said:
        tf_synflow.prune(net(), 4, criterion=criterion, progress=False)
    (message,) = [str(w.message) for w in said]
    assert message.startswith(
        "328 of 524 trainable weights (62.6 %) are kernels that are not pruned and "
        "stay dense: depthwise/depthwise_kernel (72), own/w (256)."
    )
    for advice in ("exclude=", "layer_types=", "get_prunable_weights"):
        assert advice in message


def test_what_is_excluded_or_small_needs_no_word(recwarn):
    excluded = ["own", "depthwise"]
    tf_synflow.prune(net(), 4, criterion="magnitude", exclude=excluded)
    inputs = keras.Input((100,))
    x = layers.Reshape((10, 10, 1))(layers.Dense(100, name="a")(inputs))
    x = layers.DepthwiseConv2D(3, name="small")(x)  # 9 of more than 10,000
    model = keras.Model(inputs, layers.Dense(2, name="b")(layers.Flatten()(x)))
    tf_synflow.prune(model, 4, criterion="magnitude")
    kinds = [w.category for w in recwarn]
    assert tf_synflow.DenseKernelsWarning not in kinds


@keras.saving.register_keras_serializable("test_dense")
class Positions(layers.Layer):
    """Learned positions, and a kernel whose name has the letters of "pos" in it."""

    def build(self, shape):
        self.tokens = self.add_weight(shape=(8, 8), name="position_embeddings")
        self.w = self.add_weight(shape=(8, 8), name="composite_kernel")

    def call(self, x):
        return x @ self.w + self.tokens


def test_whole_words_say_what_is_no_kernel():
    x = inputs = keras.Input((8, 8))
    x = layers.Dense(8, name="dense")(Positions(name="own")(x))
    with pytest.warns(tf_synflow.DenseKernelsWarning, match="own/composite_kernel"):
        pruned = tf_synflow.prune(keras.Model(inputs, x), 2, criterion="magnitude")
    totals = tf_synflow.report(pruned).totals
    assert totals["not_prunable"]["kernels"] == {"own/composite_kernel": 64}


@pytest.mark.filterwarnings("ignore::tf_synflow.DenseKernelsWarning")
def test_the_report_has_a_row_and_both_ratios():
    pruned = tf_synflow.prune(net(), 4, criterion="magnitude")
    report = tf_synflow.report(pruned)
    assert report.totals["not_prunable"] == {
        "size": 524 - 176,
        "kernels": {"depthwise/depthwise_kernel": 72, "own/w": 256},
    }
    text = str(report)
    assert "(not prunable)" in text
    assert "Kernels that stay dense: depthwise/depthwise_kernel (72), own/w (256)" in (
        text
    )
    assert "Prunable weights: 44 of 176 kept (25 %, 4 times fewer)" in text
    assert "All parameters: 392 of 524 kept (74.81 %, 1.337 times fewer)" in text


def test_a_ratio_of_all_kernels():
    policy = tf_synflow.PruningPolicy("magnitude", ratio_of="all")
    masks = policy.masks(net(), 1.2)  # of 504 weights in kernels
    kept = sum(mask.sum() for mask in masks.values())
    assert kept + 328 == 420
    with pytest.raises(ValueError, match="328 of them are not pruned") as error:
        policy.masks(net(), 4)
    highest = float(str(error.value).split("is about ")[1].split(";")[0])
    reached = policy.masks(net(), highest * 0.999)
    assert 2 <= sum(mask.sum() for mask in reached.values()) <= 4
    with pytest.raises(ValueError, match='granularity="filter"'):
        tf_synflow.PruningPolicy("magnitude", ratio_of="all", granularity="filter")
