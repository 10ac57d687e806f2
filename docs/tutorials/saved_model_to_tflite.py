"""
From a saved model to a TFLite file a tenth of the size
=======================================================

You have a trained Keras model in a file. This tutorial prunes it, shrinks it, trains it
a little more, and writes a TFLite file that is less than a tenth as large. At the end
the TFLite file itself is run on test images, to check its accuracy.

It takes about two minutes on two CPU cores.
"""

# %%
# The data
# --------
# The images are real handwritten digits, which come with scikit-learn.

import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import tf_synflow

x, y = load_digits(return_X_y=True)
x = (x / 16).reshape(-1, 8, 8, 1).astype("float32")
x, x_test, y, y_test = train_test_split(x, y, test_size=0.2, random_state=0)
folder = Path(tempfile.mkdtemp())
print(f"{len(x)} images to train on, {len(x_test)} to test on")

# %%
# The saved model
# ---------------
# This part stands for your own model: a network that was trained and saved before.

keras.utils.set_random_seed(0)
model = keras.Sequential(
    [
        keras.Input((8, 8, 1)),
        keras.layers.Conv2D(64, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Conv2D(128, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.MaxPooling2D(),
        keras.layers.Conv2D(128, 3, padding="same", use_bias=False),
        keras.layers.BatchNormalization(momentum=0.9),
        keras.layers.ReLU(),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ],
    name="digits",
)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
optimizer = keras.optimizers.Adam(1e-3)
model.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
model.fit(x, y, batch_size=32, epochs=6, verbose=0)
model.save(folder / "big.keras")

# %%
# Load and prune it
# -----------------
# The network is trained already, so the criterion is ``"magnitude"``: it keeps the
# weights that training made large. ``ratio=20`` keeps one weight of twenty.

big = tf_synflow.load_model(folder / "big.keras")
big.compile(metrics=["accuracy"], loss=loss)
accuracy_before = big.evaluate(x_test, y_test, verbose=0)[1]

pruned = tf_synflow.prune(big, ratio=20, criterion="magnitude")
print(tf_synflow.report(pruned))

# %%
# Train it a little more
# ----------------------
# Pruning costs accuracy, and a few epochs bring it back. ``PruningCallback`` keeps the
# pruned weights at zero.

optimizer = keras.optimizers.Adam(1e-3)
pruned.compile(optimizer, loss, metrics=["accuracy"], jit_compile=False)
accuracy_pruned = pruned.evaluate(x_test, y_test, verbose=0)[1]
pruned.fit(
    x,
    y,
    batch_size=32,
    epochs=6,
    verbose=0,
    callbacks=[tf_synflow.PruningCallback()],
)
accuracy_after = pruned.evaluate(x_test, y_test, verbose=0)[1]
print(f"test accuracy before pruning    {accuracy_before:.2%}")
print(f"right after pruning             {accuracy_pruned:.2%}")
print(f"after six more epochs           {accuracy_after:.2%}")

# %%
# Shrink it and write TFLite files
# --------------------------------
# ``shrink`` takes out channels that lie on no path. ``export`` then runs each file on
# the test images and compares the outputs with Keras before the file gets its name.

small = tf_synflow.shrink(pruned)
dense = tf_synflow.export(big, folder / "big.tflite", data=x_test)
sparse = tf_synflow.export(small, folder / "small.tflite", data=x_test)
sizes = [(folder / name).stat().st_size for name in ("big.tflite", "small.tflite")]
print(f"TFLite file of the saved model  {sizes[0]:>9,} bytes")
print(f"TFLite file of the pruned one   {sizes[1]:>9,} bytes")
print(f"times smaller                   {sizes[0] / sizes[1]:>9.1f}")
assert sizes[1] < sizes[0] / 10

# %%
# Check the file itself
# ---------------------
# The last check runs the TFLite file, without Keras.

interpreter = tf.lite.Interpreter(str(folder / "small.tflite"))
interpreter.allocate_tensors()
(given,) = interpreter.get_input_details()
(wanted,) = interpreter.get_output_details()
right = 0
for image, label in zip(x_test, y_test, strict=True):
    interpreter.set_tensor(given["index"], image[np.newaxis])
    interpreter.invoke()
    right += interpreter.get_tensor(wanted["index"]).argmax() == label
print(f"test accuracy of small.tflite   {right / len(y_test):.2%}")
assert abs(right / len(y_test) - accuracy_after) < 1e-3
