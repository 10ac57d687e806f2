"""How small files become: networks exported dense and pruned, checked against Keras.

python scripts/benchmarks/sizes.py
"""

import sys
import tempfile
from pathlib import Path

from absl import app, flags

import tf_synflow
from tf_synflow import models
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.keras2.imports import keras

_MODELS = flags.DEFINE_list("models", ["lenet", "vgg16_bn", "resnet20"], "Networks.")
_RATIOS = flags.DEFINE_list("ratios", ["10", "100"], "Compression ratios.")


def _lenet() -> keras.Model:
    """Builds LeNet-5 with ReLU and max pooling, for 28x28 images."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(6, 5, padding="same", activation="relu"),
            layers.MaxPool2D(),
            layers.Conv2D(16, 5, activation="relu"),
            layers.MaxPool2D(),
            layers.Flatten(),
            layers.Dense(120, activation="relu"),
            layers.Dense(84, activation="relu"),
            layers.Dense(10),
        ],
        name="lenet",
    )


def _line(name: str, ratio: str, exported: tf_synflow.Exported) -> str:
    return (
        f"| {name} | {ratio} | {exported.format} | {exported.dense_bytes:,} | "
        f"{exported.bytes:,} | {exported.compressed_bytes:,} | "
        f"{exported.difference:.1e} | {exported.largest_output:.1e} |"
    )


@in_one_line
def main(argv: list[str]) -> None:
    """Exports every network at every ratio, and prints a Markdown table."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    unknown = set(_MODELS.value) - {"lenet", *models.MODELS}
    if unknown:
        sys.exit(f"sizes.py: there are no networks {sorted(unknown)}")
    print("| network | ratio | format | dense, bytes | written | deflated ", end="")
    print("| difference | largest output |\n|---|---|---|---|---|---|---|---|")
    for name in _MODELS.value:
        keras.utils.set_random_seed(0)
        model = _lenet() if name == "lenet" else models.build(name, (32, 32, 3), 10)
        for ratio in ["1", *_RATIOS.value]:
            pruned = tf_synflow.prune(model, float(ratio))
            with tempfile.TemporaryDirectory() as folder:
                for ending in (".tflite", ""):
                    written = tf_synflow.export(pruned, Path(folder) / f"model{ending}")
                    print(_line(name, ratio, written), flush=True)


if __name__ == "__main__":
    app.run(main)
