"""Draws the figures of the SynFlow paper, as PNG and SVG, with their numbers as CSV.

tf-synflow figures --figure=6 --runs=runs/figure6/cifar10_vgg16_bn
tf-synflow figures --figure=2 --model=vgg16_bn --classes=100 --alphas=1,2,3

Figures 1 and 6 are drawn from finished sweeps, beside the published curves where there
are any. They also come as a page of HTML with tables of the runs. Figures 2, 3, 4 and 7
are drawn from new networks; criteria that need data get images of noise.
"""

from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from tqdm.auto import tqdm

from tf_synflow import models
from tf_synflow.commands.flag_files import resource_folder
from tf_synflow.commands.flag_values import check_folder, numbers
from tf_synflow.criteria import CRITERIA
from tf_synflow.experiments import paper_figures, paper_tables, sweep
from tf_synflow.experiments.sweep_page import sweep_page
from tf_synflow.files.whole import write_csv
from tf_synflow.keras2.imports import keras
from tf_synflow.reporting.html_page import write_page
from tf_synflow.reporting.picture import pyplot

_FIGURE = flags.DEFINE_enum(
    "figure",
    None,
    ["1", "2", "3", "4", "6", "7"],
    "Number of the figure in the paper.",
    required=True,
)
_OUTPUT = flags.DEFINE_string(
    "output", None, "Name of the files, without ending. Default: figure<its number>."
)
_RUNS = flags.DEFINE_list("runs", [], "For figures 1 and 6: folders of sweeps.")
_PUBLISHED = flags.DEFINE_string(
    "published",
    None,
    "For figures 1 and 6: folder of the authors' numbers. Default: the library's own.",
)
_MODEL = flags.DEFINE_enum("model", "vgg16_bn", sorted(models.MODELS), "Network.")
_SIZE = flags.DEFINE_integer("size", 32, "Height and width of the images, in pixels.")
_CLASSES = flags.DEFINE_integer("classes", 100, "Number of classes.")
_ALPHAS = flags.DEFINE_list("alphas", ["1", "2", "3"], "log10 of the ratios.")
_ITERATIONS = flags.DEFINE_list(
    "iterations", ["1", "10", "100"], "For figure 7: numbers of iterations."
)
_CRITERIA = flags.DEFINE_list(
    "criteria",
    ["random", "magnitude", "snip", "grasp", "synflow"],
    "For figures 2 and 4: criteria.",
)
_IMAGES = flags.DEFINE_integer(
    "images", 200, "Number of images of noise to score by.", lower_bound=1
)
_SEEDS = flags.DEFINE_list(
    "seeds",
    ["0"],
    "Seeds of the weights and the images. Figure 2 is the mean over several.",
)


def _accuracies() -> tuple[Any, tuple, str]:
    which, file = {
        "1": ("final", "synflow_figure1_vgg16_cifar100.csv"),
        "6": ("best", "synflow_figure6_best_top1.csv"),
    }[_FIGURE.value]
    runs = [row for folder in _RUNS.value for row in sweep.read_rows(Path(folder))]
    if not runs:
        raise ValueError("name the folders of finished sweeps with --runs")
    rows = paper_tables.accuracies(runs, which)
    published = []
    for model, dataset in sorted({(r["model"], r["dataset"]) for r in rows}):
        of_figure_1 = (model, dataset) == ("vgg16_bn", "cifar100")
        if _FIGURE.value == "6" or of_figure_1:
            path = Path(_PUBLISHED.value or resource_folder("published")) / file
            published += paper_tables.published(path, model, dataset, which)
    page = sweep_page(runs, rows, published, which)
    return rows, (paper_figures.accuracy_figure, published, which), page


def _network(seed: int) -> tuple[Any, tuple[np.ndarray, np.ndarray]]:
    """A new network, and noise with labels to score it by."""
    keras.utils.set_random_seed(seed)
    shape = (_SIZE.value, _SIZE.value, 3)
    generator = np.random.default_rng(seed)
    images = generator.standard_normal((_IMAGES.value, *shape)).astype("float32")
    labels = generator.integers(0, _CLASSES.value, _IMAGES.value)
    return models.build(_MODEL.value, shape, _CLASSES.value), (images, labels)


def _from_networks() -> tuple[Any, tuple]:
    unknown = sorted(set(_CRITERIA.value) - set(CRITERIA))
    if unknown:
        raise ValueError(f"there are no criteria {unknown}; there are {list(CRITERIA)}")
    seeds = numbers("seeds", _SEEDS.value, int)
    if len(seeds) > 1 and _FIGURE.value != "2":
        raise ValueError(
            f"figure {_FIGURE.value} is drawn from one seed, got {len(seeds)}"
        )
    alphas = numbers("alphas", _ALPHAS.value, float)
    if _FIGURE.value == "2":
        tables = [
            paper_tables.layer_densities(*_network(seed), _CRITERIA.value, alphas, seed)
            for seed in tqdm(seeds, unit="network")
        ]
        return paper_tables.mean_densities(tables), (paper_figures.densities_figure,)
    model, data = _network(seeds[0])
    if _FIGURE.value == "3":
        return paper_tables.conservation(model, data), (
            paper_figures.conservation_figure,
        )
    if _FIGURE.value == "4":
        rows = paper_tables.layer_sizes(model, data, _CRITERIA.value)
        return rows, (paper_figures.sizes_figure,)
    counts = numbers("iterations", _ITERATIONS.value, int)
    rows = paper_tables.largest_steps(model, alphas, counts, progress=tqdm)
    return rows, (paper_figures.steps_figure,)


def main(argv: list[str]) -> None:
    """Draws the figure that the flags name."""
    output = _OUTPUT.value or f"figure{_FIGURE.value}"
    pyplot()  # If pictures cannot be drawn, say so before the work is done.
    check_folder("output", output)
    from_runs = _FIGURE.value in ("1", "6")
    page = None
    if from_runs:
        rows, (draw, *more), page = _accuracies()
    else:
        rows, (draw, *more) = _from_networks()
    write_csv(f"{output}.csv", rows)
    for ending in (".png", ".svg"):
        draw(Path(output + ending), rows, *more)
    endings = [".csv", ".png", ".svg"]
    if page:
        write_page(output + ".html", page)
        endings.append(".html")
    print(", ".join(output + ending for ending in endings))
