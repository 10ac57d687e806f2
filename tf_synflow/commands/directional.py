"""Shows directional pruning: how GRDA's solution lies to that of SGD.

tf-synflow directional --output=directional

The program trains a network by SGD and, from the same weights and on the same batches,
by GRDA for each mu. Then it measures three things: the training loss on the straight
line and on a Bezier curve from GRDA's solution to SGD's, beside an SGD solution that is
pruned by magnitude to as many zeros; the share of the difference that lies in the top
eigenvectors of the Hessian, over the epochs; and the zeros of each layer. It writes
<output>.png and .svg; and <output>.csv, with a row for each network, beside
<output>_paths.csv, _shares.csv and _layers.csv.
"""

from pathlib import Path
from typing import Any

from absl import flags
from tqdm.auto import tqdm

from tf_synflow import models
from tf_synflow.commands.data_flags import DATA_DIR, DOWNLOAD, TRAIN_IMAGES
from tf_synflow.commands.flag_values import check_folder, numbers
from tf_synflow.experiments import data
from tf_synflow.experiments.directional.figure import directional_figure
from tf_synflow.experiments.directional.study import Settings, Tables, study
from tf_synflow.experiments.recipe import Recipe
from tf_synflow.files.whole import write_csv
from tf_synflow.reporting.picture import pyplot

_DECAYS = ("constant", "garipov", "cosine")

_OUTPUT = flags.DEFINE_string(
    "output", "directional", "Name of the files, without ending."
)
_MODEL = flags.DEFINE_enum(
    "model",
    "small_cnn",
    sorted(models.MODELS),
    "Network to train. It must not have BatchNormalization.",
)
_DATASET = flags.DEFINE_enum(
    "dataset",
    "digits_8x8",
    data.IN_MEMORY,
    "Data set to train on.",
)
_C = flags.DEFINE_float("c", 0.005, "GRDA: strength of the threshold, 0 or more.")
_MUS = flags.DEFINE_list(
    "mus", ["0.6", "0.7", "0.75"], "GRDA: growths of the threshold, between 0 and 1."
)
_EPOCHS = flags.DEFINE_integer(
    "epochs", 400, "Number of passes over the training images.", lower_bound=1
)
_BATCH_SIZE = flags.DEFINE_integer(
    "batch_size", 32, "Number of images in a step.", lower_bound=1
)
_LEARNING_RATE = flags.DEFINE_float(
    "learning_rate", 0.1, "Learning rate at the first step.", lower_bound=0.0
)
_DECAY = flags.DEFINE_enum(
    "decay",
    "constant",
    _DECAYS,
    "How the learning rate falls: garipov is constant for half of the epochs and then "
    "falls to a hundredth, cosine ends at 0.",
)
_LOOKS = flags.DEFINE_list(
    "looks",
    None,
    "Epochs after which to look at the eigenvectors. Default: ten from 1 to the last, "
    "each about twice as late as the one before.",
)
_EIGENVECTORS = flags.DEFINE_integer(
    "eigenvectors", 10, "Number of the Hessian's top eigenvectors.", lower_bound=1
)
_POINTS = flags.DEFINE_integer(
    "points", 61, "Number of places at which to look at each path.", lower_bound=2
)
_CURVE_EPOCHS = flags.DEFINE_integer(
    "curve_epochs",
    100,
    "Number of passes over the training images to fit each Bezier curve.",
    lower_bound=1,
)
_CURVE_LEARNING_RATE = flags.DEFINE_float(
    "curve_learning_rate",
    0.02,
    "Learning rate in the first half of these passes.",
    lower_bound=0.0,
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the weights and the batches.")


def main(argv: list[str]) -> None:
    """Trains, measures, draws, and prints the table of networks."""
    pyplot()  # If pictures cannot be drawn, say so before the work is done.
    settings = _settings()
    settings.check()
    output = _OUTPUT.value
    check_folder("output", output)
    images = data.load_arrays(_DATASET.value, DATA_DIR.value, DOWNLOAD.value)
    if TRAIN_IMAGES.value is not None:
        images = images.first(TRAIN_IMAGES.value)
    tables = study(images, settings, _bar)
    write_csv(f"{output}.csv", tables.networks)
    for name in ("paths", "shares", "layers"):
        write_csv(f"{output}_{name}.csv", getattr(tables, name))
    title = f"{settings.model} on {_DATASET.value}, {_EPOCHS.value} epochs"
    title += f", c = {settings.c:g}"
    for ending in (".png", ".svg"):
        directional_figure(Path(output + ending), title, tables)
    print("\n".join(_lines(tables)))
    print(f"{output}.png, {output}.svg, {output}.csv and three more beside it")


def _settings() -> Settings:
    looks = _LOOKS.value
    return Settings(
        model=_MODEL.value,
        c=_C.value,
        mus=numbers("mus", _MUS.value, float),
        recipe=Recipe(
            epochs=_EPOCHS.value,
            batch_size=_BATCH_SIZE.value,
            learning_rate=_LEARNING_RATE.value,
            seed=_SEED.value,
            decay=_DECAY.value,
        ),
        looks=_usual() if looks is None else numbers("looks", looks, int),
        eigenvectors=_EIGENVECTORS.value,
        points=_POINTS.value,
        curve_epochs=_CURVE_EPOCHS.value,
        curve_learning_rate=_CURVE_LEARNING_RATE.value,
    )


def _usual() -> tuple[int, ...]:
    """Ten epochs from 1 to the last, at equal distances on a logarithmic scale."""
    last = _EPOCHS.value
    return tuple(sorted({round(last ** (n / 9)) for n in range(10)}))


def _bar(total: int, description: str) -> Any:
    return tqdm(total=total, desc=description)


def _lines(tables: Tables) -> list[str]:
    """The table of networks, a line for each."""
    lines = []
    for row in tables.networks:
        mu = "" if row["mu"] == "" else f", mu {row['mu']:g}"
        line = (
            f"{row['network']}{mu}: {row['sparsity']:.2%} zeros, training loss "
            f"{row['train_loss']:.4g}, test accuracy {row['test_accuracy']:.2%}"
        )
        if mu:
            line += f"; to SGD at most {row['straight_max']:.4g} straight"
            if row["bezier_max"] != "":
                line += f", {row['bezier_max']:.4g} on the curve"
            line += (
                f"; share in the top eigenvectors {row['share']:.3g} (random "
                f"{row['random_share']:.3g})"
            )
        lines.append(line)
    return lines
