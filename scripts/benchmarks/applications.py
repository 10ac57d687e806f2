"""Prunes the networks that Keras ships, and says what is left of them.

python scripts/benchmarks/applications.py --output=applications.csv
KERAS_BACKEND=jax python scripts/benchmarks/applications.py --keras=keras

Each network is built with its stated input shape and new weights, and pruned by SynFlow
in a process of its own. Lines of a Markdown table are printed as they come. With
KerasHub installed and --keras=keras, its VGG and ResNet backbones are among the names:
--names=VGGBackbone,ResNetBackbone.
"""

import multiprocessing
import sys
import time
from concurrent import futures
from typing import Any

from absl import app, flags

import tf_synflow
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.files.whole import write_csv
from tf_synflow.frameworks import keras_named

# The fastest networks come first, so that most of the table is there soon.
NAMES = (
    "MobileNetV3Small",
    "MobileNet",
    "MobileNetV2",
    "MobileNetV3Large",
    "EfficientNetB0",
    "EfficientNetV2B0",
    "ResNet50",
    "ResNet50V2",
    "DenseNet121",
    "NASNetMobile",
    "InceptionV3",
    "Xception",
    "VGG16",
    "VGG19",
    "ResNet101",
    "ResNet101V2",
    "DenseNet169",
    "ResNet152",
    "ResNet152V2",
    "DenseNet201",
    "ConvNeXtTiny",
    "InceptionResNetV2",
)

# Backbones of KerasHub, for Keras 3.
BACKBONES = ("VGGBackbone", "ResNetBackbone")

_NAMES = flags.DEFINE_list("names", list(NAMES), "Names in keras.applications.")
_KERAS = flags.DEFINE_enum(
    "keras", "tf_keras", ["tf_keras", "keras"], "Which Keras builds the networks."
)
_RATIO = flags.DEFINE_float("ratio", 10.0, "Compression ratio.")
_ITERATIONS = flags.DEFINE_integer("iterations", 100, "Of SynFlow.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Seeds the weights.")
_OUTPUT = flags.DEFINE_string("output", None, "CSV file for the results.")


def backbone(name: str) -> Any:
    """Builds a backbone of KerasHub in its most used size."""
    import keras_hub

    if name == "VGGBackbone":
        return keras_hub.models.VGGBackbone(
            stackwise_num_repeats=[2, 2, 3, 3, 3],
            stackwise_num_filters=[64, 128, 256, 512, 512],
            image_shape=(224, 224, 3),
        )
    return keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(224, 224, 3),
    )


def prune_one(
    name: str, ratio: float, iterations: int, seed: int, keras_name: str = "tf_keras"
) -> dict[str, Any]:
    """Prunes one network in this process.

    Returns:
      The network's row of the table, by column; or, if the network was refused, its
      name, its input shape and `error`, the text of the error.
    """
    keras = keras_named(keras_name)
    keras.utils.set_random_seed(seed)
    # MobileNetV3 has no fixed input size unless one is given.
    size = {"input_shape": (224, 224, 3)} if name.startswith("MobileNetV3") else {}
    if name in BACKBONES:
        model = backbone(name)
    else:
        model = getattr(keras.applications, name)(weights=None, **size)
    policy = tf_synflow.PruningPolicy(
        iterations=iterations, on_collapse="ignore", progress=False
    )
    row: dict[str, Any] = {
        "network": name,
        "input": "x".join(map(str, model.input_shape[1:])),
    }
    start = time.perf_counter()
    try:
        pruned = tf_synflow.prune(model, ratio, policy=policy)
    except ValueError as error:
        return {**row, "error": str(error)}
    seconds = time.perf_counter() - start
    totals = tf_synflow.report(pruned).totals
    return {
        **row,
        "prunable": totals["prunable"]["size"],
        "kept": totals["prunable"]["kept"],
        "effective": totals["effective"],
        "connected": totals["connected"],
        "emptied": " ".join(totals["emptied"]),
        "seconds": round(seconds, 1),
    }


def _line(row: dict[str, Any]) -> str:
    if "error" in row:
        return f"| {row['network']} | {row['input']} | refused: {row['error']} |"
    emptied = row["emptied"].split()
    return (
        f"| {row['network']} | {row['input']} | {row['prunable']:,} | {row['kept']:,} "
        f"| {row['effective']:,} | {'yes' if row['connected'] else 'NO'} "
        f"| {len(emptied)}{': ' if emptied else ''}{', '.join(emptied[:3])}"
        f"{' ...' if len(emptied) > 3 else ''} | {row['seconds']} |"
    )


@in_one_line
def main(argv: list[str]) -> None:
    """Prunes the networks that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    applications = dir(keras_named(_KERAS.value).applications)
    known = {name for name in applications if name[0].isupper()}
    known |= set(BACKBONES) if _KERAS.value == "keras" else set()
    unknown = sorted(set(_NAMES.value) - known)
    if unknown:
        sys.exit(f"applications.py: {_KERAS.value}.applications has no {unknown}")
    print("| network | input | prunable | kept | on a path | connected | emptied | s |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    rows = []
    spawn = multiprocessing.get_context("spawn")
    for name in _NAMES.value:
        # Each network has its own process, which starts with fresh memory.
        with futures.ProcessPoolExecutor(1, spawn) as process:
            job = process.submit(
                prune_one,
                name,
                _RATIO.value,
                _ITERATIONS.value,
                _SEED.value,
                _KERAS.value,
            )
            try:
                rows.append(job.result())
            except futures.process.BrokenProcessPool:
                row = {"network": name, "input": "", "error": "its process was killed"}
                rows.append(row)
        print(_line(rows[-1]), flush=True)
        if _OUTPUT.value and "error" not in rows[-1]:
            write_csv(_OUTPUT.value, [row for row in rows if "error" not in row])


if __name__ == "__main__":
    app.run(main)
