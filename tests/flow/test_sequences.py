"""SynFlow through embeddings and recurrent layers, against removal of each weight."""

import frozen_flow
import keras as keras3
import numpy as np
import pytest
from frozen_flow import POLICY, compare
from nets import randomise

import tf_synflow
from tf_synflow.keras2.imports import keras as keras2


@pytest.fixture(params=[keras2, keras3], ids=["keras2", "keras3"])
def keras(request):
    """Either Keras."""
    return request.param


# Keras 3 says that EinsumDense does not hand the mask on.
@pytest.mark.filterwarnings("ignore:.*EinsumDense.*mask:UserWarning")
def test_an_embedding_is_the_sum_over_the_vocabulary(keras):
    layer = keras.layers
    inputs = keras.Input((3,), dtype="int32")
    x = layer.Embedding(5, 4, mask_zero=True, name="words")(inputs)
    x = layer.EinsumDense("abc,cde->abde", (None, 2, 3), name="split")(x)
    x = layer.EinsumDense("...de,def->...f", 2, name="join")(x)
    model = randomise(keras.Model(inputs, layer.Dense(2, name="head")(x)))

    def flow(w, frozen):
        x = np.ones((3, 1)) * w["words/embeddings"].sum(0)
        x = np.einsum("tc,cde->tde", x, w["split/kernel"])
        x = np.einsum("tde,def->tf", x, w["join/kernel"])
        return (x @ w["head/kernel"]).sum()

    whole, scores = compare(model, flow)
    for score in scores.values():
        assert score.sum() == pytest.approx(whole, rel=1e-13)


GATES = {"SimpleRNN": 1, "GRU": 3, "LSTM": 4}


@pytest.mark.parametrize("kind", GATES)
def test_one_recurrent_step(keras, kind):
    layer = keras.layers
    inputs = keras.Input((3, 2))
    make = getattr(layer, kind)
    x = make(3, return_sequences=True, name="first")(inputs)
    x = make(2, go_backwards=True, return_sequences=True, name="second")(x)
    x = make(2, name="third")(x)
    model = randomise(keras.Model(inputs, layer.Dense(2, name="head")(x)))
    cell = {"SimpleRNN": "simple_rnn_cell", "GRU": "gru_cell", "LSTM": "lstm_cell"}

    def flow(w, frozen):
        x = np.ones((3, 2))
        x = frozen_flow.recur(w, frozen, f"first/{cell[kind]}", x, GATES[kind])
        x = frozen_flow.recur(w, frozen, f"second/{cell[kind]}", x[::-1], GATES[kind])
        x = frozen_flow.recur(w, frozen, f"third/{cell[kind]}", x, GATES[kind])
        return (x[-1] @ w["head/kernel"]).sum()

    whole, scores = compare(model, flow)
    for score in scores.values():
        assert score.sum() == pytest.approx(whole, rel=1e-13)


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave"])
def test_both_directions_and_a_layer_at_each_step(keras, merge):
    layer = keras.layers
    inputs = keras.Input((3, 2))
    both = layer.LSTM(2, return_sequences=True, name="lstm")
    x = layer.Bidirectional(both, merge_mode=merge, name="both")(inputs)
    x = layer.TimeDistributed(layer.Dense(3, name="dense"), name="each")(x)
    both = layer.Bidirectional(layer.GRU(2, name="gru"), merge_mode=merge, name="last")
    model = randomise(keras.Model(inputs, layer.Dense(2, name="head")(both(x))))

    def merged(a, b):
        if merge == "concat":
            return np.concatenate([a, b], -1)
        return (a + b) / (2 if merge == "ave" else 1)

    def flow(w, frozen):
        x = np.ones((3, 2))
        a = frozen_flow.recur(w, frozen, "both/forward_lstm/lstm_cell", x, 4)
        b = frozen_flow.recur(w, frozen, "both/backward_lstm/lstm_cell", x[::-1], 4)
        x = merged(a, b[::-1]) @ w["each/dense/kernel"]
        a = frozen_flow.recur(w, frozen, "last/forward_gru/gru_cell", x, 3)
        b = frozen_flow.recur(w, frozen, "last/backward_gru/gru_cell", x[::-1], 3)
        return (merged(a[-1], b[-1]) @ w["head/kernel"]).sum()

    compare(model, flow)


def test_states_from_an_encoder(keras):
    layer = keras.layers
    inputs, others = keras.Input((3, 2)), keras.Input((2, 4))
    _, *states = layer.LSTM(2, return_state=True, name="encoder")(inputs)
    y = layer.LSTM(2, return_sequences=True, name="decoder")(
        others, initial_state=states
    )
    model = keras.Model([inputs, others], layer.Dense(2, name="head")(y))

    def flow(w, frozen):
        state = frozen_flow.recur(w, frozen, "encoder/lstm_cell", np.ones((3, 2)), 4)[
            -1
        ]
        y = frozen_flow.recur(w, frozen, "decoder/lstm_cell", np.ones((2, 4)), 4)
        return ((y + 2 * state) @ w["head/kernel"]).sum()

    compare(randomise(model), flow)


def test_cells_on_top_of_each_other(keras):
    layer = keras.layers
    inputs = keras.Input((3, 2))
    cells = [layer.LSTMCell(2, name="a"), layer.GRUCell(3, name="b")]
    x = layer.RNN(cells, return_sequences=True, name="rnn")(inputs)
    model = randomise(keras.Model(inputs, layer.Dense(2, name="head")(x)))
    (stack,) = {n.split("/")[1] for n in POLICY.score(model) if n.startswith("rnn")}

    def flow(w, frozen):
        x = frozen_flow.recur(w, frozen, f"rnn/{stack}/a", np.ones((3, 2)), 4)
        x = frozen_flow.recur(w, frozen, f"rnn/{stack}/b", x, 3)
        return (x @ w["head/kernel"]).sum()

    compare(model, flow)


def test_a_convolutional_lstm(keras):
    layer = keras.layers
    inputs = keras.Input((2, 3, 3, 1))
    x = layer.ConvLSTM2D(2, 2, name="conv")(inputs)
    x = layer.Flatten()(x)
    model = randomise(keras.Model(inputs, layer.Dense(2, name="head")(x)))
    name = "conv/conv_lstm_cell"

    def conv(image, kernel, same):
        """Windows of 2x2; padded with a row and a column at the end for "same"."""
        if same:
            image = np.pad(image, ((0, 1), (0, 1), (0, 0)))
        height, width = image.shape[0] - 1, image.shape[1] - 1
        return np.array(
            [
                [
                    np.einsum("abc,abco->o", image[r : r + 2, c : c + 2], kernel)
                    for c in range(width)
                ]
                for r in range(height)
            ]
        )

    def flow(w, frozen):
        a = conv(np.ones((3, 3, 1)), w[f"{name}/kernel"], False)  # at both steps
        z = frozen("z", a.reshape(2, 2, 4, 2).sum(2))
        u = conv(z, w[f"{name}/recurrent_kernel"], True)
        y = (a * u / frozen("u", u)).reshape(2, 2, 4, 2).sum(2)
        return (y.ravel() @ w["head/kernel"]).sum()

    whole, scores = compare(model, flow)
    for score in scores.values():
        assert score.sum() == pytest.approx(whole, rel=1e-13)


@pytest.mark.parametrize("steps", [2, 32])
def test_the_recurrent_kernel_scores_alike_at_any_length(steps):
    layer = keras3.layers
    inputs = keras3.Input((steps, 4))
    x = layer.Bidirectional(layer.LSTM(8, name="lstm"), name="both")(inputs)
    model = randomise(keras3.Model(inputs, layer.Dense(2, name="head")(x)))
    totals = {name: score.sum() for name, score in POLICY.score(model).items()}
    whole = totals["head/kernel"]
    for direction in ("forward", "backward"):
        cell = f"both/{direction}_lstm/lstm_cell"
        recurrent, kernel = totals[f"{cell}/recurrent_kernel"], totals[f"{cell}/kernel"]
        assert recurrent == pytest.approx(kernel, rel=1e-13)
    kernels = [total for name, total in totals.items() if name.endswith("cell/kernel")]
    assert sum(kernels) == pytest.approx(whole, rel=1e-13)


def test_tied_embeddings_count_at_both_ends():
    layer = keras3.layers
    inputs = keras3.Input((3,), dtype="int32")
    words = layer.ReversibleEmbedding(4, 3, name="words")
    x = layer.Dense(3, name="dense")(words(inputs))
    model = randomise(keras3.Model(inputs, words(x, reverse=True)))
    scores = POLICY.score(model)
    assert scores["words/embeddings"].sum() == pytest.approx(
        2 * scores["dense/kernel"].sum(), rel=1e-13
    )


def test_fast_and_slow_pruning_agree_on_sequences():
    """The loop that cuts dead channels, against scoring and removing in turn."""
    from tf_synflow import frameworks
    from tf_synflow.masks.counts import plan
    from tf_synflow.masks.selection import iterate

    layer = keras3.layers
    inputs = keras3.Input((6,), dtype="int32")
    x = layer.Embedding(20, 8, name="words")(inputs)
    y = layer.MultiHeadAttention(2, 4, name="mha")(x, x)
    x = layer.Add()([x, layer.Dense(8, name="down")(layer.Dense(16, name="up")(y))])
    x = layer.Conv1D(8, 3, name="conv")(x)
    x = layer.GRU(6, name="gru")(x)
    model = randomise(keras3.Model(inputs, layer.Dense(3, name="head")(x)))
    policy = tf_synflow.PruningPolicy(progress=False, iterations=20)
    fast = policy.masks(model, 30)
    task = policy.task(frameworks.read(model))
    steps = plan(task.start, 30, 20, "exponential", "global")
    slow = iterate(task.prepare_scores(), task.start, steps)
    for name, mask in fast.items():
        np.testing.assert_array_equal(mask, slow[name], name)
