"""Prunes small transformers and LSTMs before training, and trains them.

python scripts/benchmarks/attention.py --network=vit --ratios=10,100 --seeds=4
python scripts/benchmarks/attention.py --network=text --ratios=10,30 --seeds=4
python scripts/benchmarks/attention.py --network=vit_b16 --ratios=10

Each line that it prints is a run: accuracy on what was kept for testing, the share of
the kept weights that lie on a path, and densities. The networks are

- vit: a vision transformer on scikit-learn's digits: 16 tokens of 2x2 pixels, width 64,
  4 heads of 16, 2 blocks, the mean over tokens. With --class_token a learned token is
  read in place of the mean. With --glorot=2 attention kernels are drawn as the matrices
  that they are, not as Keras draws arrays of rank 3.
- text: a transformer, and lstm: a bidirectional LSTM, that tell a sentence of numpy's
  documentation from one of TensorFlow's, by the words in it.

vit_b16, as large as ViT-B/16 on images of 224x224 pixels, is not trained: the line says
how long 100 iterations of SynFlow took, and the peak memory of the process.
"""

import inspect
import resource
import time
import zlib

import numpy as np
import tensorflow as tf
from absl import app, flags

import tf_synflow
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.keras2.imports import keras

NETWORK = flags.DEFINE_enum(
    "network", "vit", ["vit", "text", "lstm", "vit_b16"], "See above."
)
CRITERIA = flags.DEFINE_list(
    "criteria", "synflow,magnitude,local,random,snip", '"local": magnitude, by tensor.'
)
RATIOS = flags.DEFINE_list("ratios", "10,100", "Compression ratios; 1 is dense.")
SEEDS = flags.DEFINE_integer("seeds", 4, "Number of seeds.")
STEPS = flags.DEFINE_integer("steps", 300, "Training steps of 128 examples.")
GLOROT = flags.DEFINE_enum("glorot", "3", ["2", "3"], "Rank of attention kernels.")
CLASS_TOKEN = flags.DEFINE_boolean("class_token", False, "Reads a learned token.")

layers = keras.layers


@keras.saving.register_keras_serializable("attention_benchmark")
class Positions(layers.Layer):
    """Adds a learned vector to each token."""

    def build(self, shape):
        """Creates the variable with the vectors."""
        self.pos = self.add_weight("pos", (1, *shape[1:]), initializer="normal")

    def call(self, x):
        """Adds the vectors to the tokens."""
        return x + self.pos


@keras.saving.register_keras_serializable("attention_benchmark")
class ClassToken(layers.Layer):
    """Puts a learned token before the others."""

    def build(self, shape):
        """Creates the variable with the token."""
        self.token = self.add_weight("token", (1, 1, shape[-1]), initializer="normal")

    def call(self, x):
        """Puts the token before the others."""
        return tf.concat([tf.repeat(self.token, tf.shape(x)[0], 0), x], 1)


def blocks(x, width, heads, number, hidden=2):
    """Applies pre-norm transformer blocks to `x`, and a LayerNormalization."""
    for n in range(number):
        y = layers.LayerNormalization()(x)
        mha = layers.MultiHeadAttention(heads, width // heads, name=f"mha{n}")
        x = layers.Add()([x, mha(y, y)])
        y = layers.LayerNormalization()(x)
        y = layers.Dense(hidden * width, "gelu", name=f"up{n}")(y)
        x = layers.Add()([x, layers.Dense(width, name=f"down{n}")(y)])
    return layers.LayerNormalization()(x)


def vit():
    """Builds the small vision transformer."""
    inputs = keras.Input((8, 8, 1))
    x = layers.Conv2D(64, 2, 2, name="patch")(inputs)
    x = layers.Reshape((16, 64))(x)
    if CLASS_TOKEN.value:
        x = ClassToken(name="cls")(x)
    x = blocks(Positions(name="pos")(x), 64, 4, 2)
    if CLASS_TOKEN.value:
        x = x[:, 0]
    else:
        x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(10, name="head")(x))


def vit_b16():
    """Builds a vision transformer with 86 million weights.

    It has 12 blocks of width 768, 196 tokens and a class token.
    """
    inputs = keras.Input((224, 224, 3))
    x = layers.Reshape((196, 768))(layers.Conv2D(768, 16, 16, name="patch")(inputs))
    x = Positions(name="pos")(ClassToken(name="cls")(x))
    x = blocks(x, 768, 12, 12, hidden=4)[:, 0]
    return keras.Model(inputs, layers.Dense(1000, name="head")(x))


def text():
    """Builds a transformer that reads words."""
    inputs = keras.Input((24,), dtype="int32")
    x = layers.Embedding(1000, 32, name="words")(inputs)
    x = blocks(Positions(name="pos")(x), 32, 4, 2)
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def lstm():
    """Builds a bidirectional LSTM that reads words."""
    inputs = keras.Input((24,), dtype="int32")
    x = layers.Embedding(1000, 32, name="words")(inputs)
    x = layers.Bidirectional(layers.LSTM(32, name="lstm"), name="both")(x)
    return keras.Model(inputs, layers.Dense(2, name="head")(x))


def digits():
    """Gives the images and labels for training, and those for testing."""
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    x, y = (x / 16).reshape(-1, 8, 8, 1).astype("float32")[order], y[order]
    return (x[360:], y[360:]), (x[:360], y[:360])


def sentences():
    """Gives sentences and labels for training, and those for testing.

    Words are numbers from 1, and sentences are padded with 0. The label is 0 for a
    sentence from numpy and 1 for one from TensorFlow.
    """
    found = []
    for module in (np, tf.raw_ops):
        docs = [inspect.getdoc(getattr(module, n)) or "" for n in sorted(dir(module))]
        own = {
            part
            for doc in docs
            for part in doc.replace("\n", " ").split(". ")
            if 8 <= len(part.split()) <= 24
        }
        found.append(sorted(own))
    size = min(map(len, found))
    generator = np.random.default_rng(0)
    rows, labels = [], []
    for label, own in enumerate(found):
        for place in generator.permutation(len(own))[:size]:
            words = own[place].lower().split()
            numbers = [zlib.crc32(w.encode()) % 999 + 1 for w in words]
            rows.append(numbers + [0] * (24 - len(numbers)))
            labels.append(label)
    order = generator.permutation(len(rows))
    x, y = np.array(rows)[order], np.array(labels)[order]
    test = len(y) // 5
    return (x[test:], y[test:]), (x[:test], y[:test])


def drawn_as_matrices(model):
    """Draws the attention kernels again, with the Glorot limits of matrices.

    Keras takes the fans from arrays of rank 3. Here the fans are the true numbers of
    inputs and outputs.
    """
    for layer in model.layers:
        if isinstance(layer, layers.MultiHeadAttention):
            for part in ("query", "key", "value", "output"):
                kernel = getattr(layer, f"_{part}_dense").kernel
                inside = 2 if part == "output" else 1
                fans = np.prod(kernel.shape[:inside]), np.prod(kernel.shape[inside:])
                limit = np.sqrt(6 / sum(fans))
                kernel.assign(tf.random.uniform(kernel.shape, -limit, limit))


def pruned(model, criterion, ratio, data, seed):
    """Gives a pruned copy of a model."""
    scope = "local" if criterion == "local" else "global"
    name = "magnitude" if criterion == "local" else criterion
    policy = tf_synflow.PruningPolicy(
        name, scope=scope, seed=seed, progress=False, on_collapse="ignore"
    )
    few = (data[0][:256], data[1][:256]) if criterion == "snip" else None
    return tf_synflow.prune(model, ratio, policy=policy, data=few)


def accuracy(model, data, test):
    """Trains a model, and gives its accuracy on the test data, 0 to 1."""
    rate = keras.optimizers.schedules.CosineDecay(2e-3, STEPS.value)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=["accuracy"])
    stream = tf.data.Dataset.from_tensor_slices(data).shuffle(2000, seed=0).repeat()
    model.fit(stream.batch(128), epochs=1, steps_per_epoch=STEPS.value, verbose=0)
    return model.evaluate(*test, verbose=0)[1]


def densities(report):
    """Gives the share of weights that are kept, in percent, for each kind of kernel."""
    kinds = {}
    for row in report.layers:
        parts = row["name"].split("/")
        kind = (
            parts[-2] if parts[0].startswith("mha") else parts[0].rstrip("0123456789")
        )
        if parts[-1] == "recurrent_kernel":
            kind = "recurrent"
        kept, size = kinds.get(kind, (0, 0))
        kinds[kind] = kept + row["kept"], size + row["size"]
    return {kind: round(100 * kept / size, 2) for kind, (kept, size) in kinds.items()}


def time_large():
    """Prunes the large network, and prints the time and the memory that this took."""
    keras.utils.set_random_seed(0)
    model = vit_b16()
    for ratio in map(float, RATIOS.value):
        start = time.perf_counter()
        masks = tf_synflow.PruningPolicy(progress=False).masks(model, ratio)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        kept = sum(int(mask.sum()) for mask in masks.values())
        size = sum(mask.size for mask in masks.values())
        print(
            f"ratio {ratio:g}: {kept:,} of {size:,} weights kept, {seconds:.0f} s, "
            f"peak {peak:.2f} GB",
            flush=True,
        )


@in_one_line
def main(_):
    """Prunes and trains the network that the flags name; prints a line for each run."""
    tf_synflow.register_linear_part(Positions, lambda layer, x, w: x)
    tf_synflow.register_linear_part(
        ClassToken, lambda layer, x, w: tf.pad(x, [[0, 0], [1, 0], [0, 0]])
    )
    if NETWORK.value == "vit_b16":
        time_large()
        return
    data, test = digits() if NETWORK.value == "vit" else sentences()
    print(len(data[1]), "to train on,", len(test[1]), "to test on", flush=True)
    for seed in range(SEEDS.value):
        keras.utils.set_random_seed(seed)
        model = globals()[NETWORK.value]()
        if GLOROT.value == "2":
            drawn_as_matrices(model)
        for ratio in map(float, RATIOS.value):
            for criterion in CRITERIA.value if ratio > 1 else ["dense"]:
                keras.utils.set_random_seed(seed)
                small = (
                    tf_synflow.prune(model, 1)
                    if criterion == "dense"
                    else pruned(model, criterion, ratio, data, seed)
                )
                report = tf_synflow.report(small)
                whole = report.totals
                print(
                    f"seed {seed} {criterion} {ratio:g}: "
                    f"accuracy {100 * accuracy(small, data, test):.1f}, on paths "
                    f"{100 * whole['effective'] / whole['prunable']['kept']:.1f}, "
                    f"emptied {len(whole['emptied'])}, {densities(report)}",
                    flush=True,
                )


if __name__ == "__main__":
    app.run(main)
