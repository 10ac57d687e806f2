"""
Compare criteria on your own network
====================================

Which criterion suits a network? This tutorial prunes one network by five criteria at
three ratios, trains each result for a few epochs, and draws the accuracies.

It takes about five minutes on two CPU cores. The budget is small: with one seed, a
difference of one or two points says nothing.
"""

# %%
# The data and the network
# ------------------------
# Real handwritten digits, and a network of four convolutions. Every run starts from the
# same weights.

import time
import warnings

import keras
import matplotlib.pyplot as plt
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tf_synflow

x, y = load_digits(return_X_y=True)
x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=0)


def convolution(width):
    """A convolution with its normalisation."""
    return [
        keras.layers.Conv2D(width, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
    ]


keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        *convolution(16),
        *convolution(16),
        keras.layers.MaxPooling2D(),
        *convolution(32),
        *convolution(32),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(10),
    ]
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss)  # criteria with data use this loss
print(f"{model.count_params():,} parameters")

# %%
# Prune and train
# ---------------
# Criteria that need data get 100 of the training images.

CRITERIA = ("synflow", "magnitude", "random", "snip", "grasp")
NEEDS_DATA = ("snip", "grasp")
RATIOS = (5, 20, 80)


def trained_accuracy(network):
    """Test accuracy after five epochs."""
    keras.utils.set_random_seed(1)
    optimizer = keras.optimizers.Adam(1e-2)
    network.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
    network.fit(
        x,
        y,
        batch_size=32,
        epochs=5,
        verbose=0,
        callbacks=[tf_synflow.PruningCallback()],
    )
    return network.evaluate(x_test, y_test, verbose=0)[1]


accuracies = {}
print("criterion    ratio  accuracy  scoring, s  emptied layers")
for criterion in CRITERIA:
    for ratio in RATIOS:
        begin = time.perf_counter()
        with warnings.catch_warnings():
            # Emptied layers are counted below.
            warnings.simplefilter("ignore", tf_synflow.LayerCollapseWarning)
            pruned = tf_synflow.prune(
                model,
                ratio,
                criterion=criterion,
                data=(x[:100], y[:100]) if criterion in NEEDS_DATA else None,
            )
        seconds = time.perf_counter() - begin
        emptied = len(tf_synflow.report(pruned).totals["emptied"])
        accuracy = accuracies[criterion, ratio] = trained_accuracy(pruned)
        print(f"{criterion:12} {ratio:5}  {accuracy:8.2%} {seconds:10.1f} {emptied:10}")

# %%
# The picture
# -----------

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for criterion in CRITERIA:
    values = [100 * accuracies[criterion, ratio] for ratio in RATIOS]
    axes.plot(RATIOS, values, marker="o", label=criterion)
axes.set_xscale("log")
axes.set_xticks(RATIOS, map(str, RATIOS))
axes.minorticks_off()
axes.set_xlabel("compression ratio")
axes.set_ylabel("test accuracy after five epochs (%)")
axes.grid(alpha=0.3)
axes.legend()

# %%
# How to read it
# --------------
# This network has no shortcuts. Where a layer of it is emptied, nothing connects input
# and output any more, and the accuracy is that of guessing. SynFlow is made to avoid
# that. At a low ratio all criteria are close to each other.
