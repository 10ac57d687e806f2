"""Measures what pruning does to a network's training, by the gradient flow framework.

tf-synflow gradient_flow --flagfile=gradient_flow

Networks are trained; after some epochs they are pruned by each criterion at each ratio.
The program writes what that does to the loss and to the norm of the gradient, the
training loss of the next epochs, the rank correlations of the criteria with each other
and with the distance that weights move, and what is kept of each layer: as CSV files,
written anew after each epoch of each seed, and at the end as a picture. It also holds
two equations of the framework against a gradient flow.
"""

import statistics
from pathlib import Path

from absl import flags
from tqdm.auto import tqdm

from tf_synflow import models
from tf_synflow.commands.data_flags import DATA_DIR, DOWNLOAD, TRAIN_IMAGES
from tf_synflow.commands.flag_values import check_folder, numbers
from tf_synflow.experiments import data
from tf_synflow.experiments.gradient_flow import figure
from tf_synflow.experiments.gradient_flow.bench import Training
from tf_synflow.experiments.gradient_flow.identities import identities
from tf_synflow.experiments.gradient_flow.measure import Plan, Tables, measure
from tf_synflow.files.whole import write_csv
from tf_synflow.reporting.picture import pyplot

_OUTPUT = flags.DEFINE_string(
    "output", "gradient_flow", "Name of the files, without ending."
)
_MODEL = flags.DEFINE_enum("model", "resnet8", sorted(models.MODELS), "Network.")
_DATASET = flags.DEFINE_enum("dataset", "digits", data.IN_MEMORY, "Data set.")
_CRITERIA = flags.DEFINE_list(
    "criteria",
    [
        *("magnitude", "loss_preservation", "small_magnitude_loss_preservation"),
        *("gradient_norm_preservation", "grasp", "grasp_t1", "snip", "synflow"),
        "random",
    ],
    "Pruning criteria. grasp_t1 is GraSP with its logits divided by 1, not 200.",
)
_GRANULARITY = flags.DEFINE_enum(
    "granularity", "weight", ["weight", "filter"], "What to remove and to count."
)
_EPOCHS = flags.DEFINE_list(
    "epochs", ["0", "1", "5", "20"], "Epochs of training after which to prune."
)
_RATIOS = flags.DEFINE_list(
    "ratios", ["0.25", "0.5", "0.8"], "Shares of the weights, or filters, to remove."
)
_SEEDS = flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of networks and images.")
_AFTER = flags.DEFINE_integer(
    "after", 2, "Number of epochs to train after pruning.", lower_bound=1
)
_IMAGE_SIZE = flags.DEFINE_integer(
    "image_size",
    None,
    "Resize images to this height and width, in pixels. Default: as they are.",
)
_IMAGES = flags.DEFINE_integer(
    "images",
    256,
    "Number of training images to score by and to measure on.",
    lower_bound=1,
)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 32, "Images in a step.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.1, "Learning rate.")
_WEIGHT_DECAY = flags.DEFINE_float("weight_decay", 1e-4, "L2 weight decay.")
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 5.0, "Divide the logits by this number in the training loss."
)


def main(argv: list[str]) -> None:
    """Measures what the flags describe, writes the files and prints a summary."""
    pyplot()  # If pictures cannot be drawn, say so before the work is done.
    plan = Plan(
        model=_MODEL.value,
        criteria=tuple(_CRITERIA.value),
        epochs=numbers("epochs", _EPOCHS.value, int),
        ratios=numbers("ratios", _RATIOS.value, float),
        seeds=numbers("seeds", _SEEDS.value, int),
        images=_IMAGES.value,
        after=_AFTER.value,
        granularity=_GRANULARITY.value,
        training=Training(
            batch_size=_BATCH_SIZE.value,
            learning_rate=_LEARNING_RATE.value,
            weight_decay=_WEIGHT_DECAY.value,
            temperature=_TEMPERATURE.value,
        ),
    )
    output = _OUTPUT.value
    check_folder("output", output)
    images = data.load_arrays(_DATASET.value, DATA_DIR.value, DOWNLOAD.value)
    if TRAIN_IMAGES.value is not None:
        images = images.first(TRAIN_IMAGES.value)
    if _IMAGE_SIZE.value is not None:
        images = images.resized(_IMAGE_SIZE.value)
    equations = identities(
        images,
        min(_IMAGES.value, 200),
        progress=lambda times: tqdm(times, desc="gradient flow", unit="time"),
    )
    write_csv(f"{output}_equations.csv", equations)
    tables = measure(
        plan,
        images,
        lambda units: tqdm(units, total=plan.units(), unit="network"),
        lambda tables: _write(output, tables),
    )
    title = f"{_MODEL.value} on {_DATASET.value}, pruned by {_GRANULARITY.value}"
    for ending in (".png", ".svg"):
        figure.draw(Path(output + ending), title, tables)
    print(summary(tables, equations))
    print(f"{output}.png, {output}.svg and {output}_*.csv")


def _write(output: str, tables: Tables) -> None:
    for name, rows in tables._asdict().items():
        write_csv(f"{output}_{name}.csv", rows)


def summary(tables: Tables, equations: list[dict]) -> str:
    """The means over the seeds, and how well the equations hold, as text."""
    lines = ["criterion, epoch, removed: loss change, |g|^2 factor, next training loss"]
    groups: dict[tuple, list[dict]] = {}
    for row in tables.prunings:
        key = row["criterion"], row["epoch"], row["ratio"]
        groups.setdefault(key, []).append(row)
    for (criterion, epoch, ratio), rows in groups.items():
        loss, gradient, after = (
            statistics.mean(value(row) for row in rows)
            for value, _ in figure.MEASURES.values()
        )
        lines.append(
            f"{criterion}, {epoch}, {ratio:.0%}: {loss:+.3g}, {gradient:.3g}, "
            f"{after:.3g}"
        )
    for network in dict.fromkeys(row["network"] for row in equations):
        own = [row for row in equations if row["network"] == network]
        first, second = (
            max(abs(row[key] - row[f"{key}_formula"]) for row in own)
            / max(abs(row[key]) for row in own)
            for key in ("first", "second")
        )
        lines.append(
            f"{network} network: d|w|^2/dt and -2 w'g differ by {first:.1e} of the "
            f"largest, d2|w|^2/dt2 and 2(|g|^2 + w'Hg) by {second:.1e}"
        )
    return "\n".join(lines)
