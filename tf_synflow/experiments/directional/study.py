"""Trains the networks, and measures what lies between their solutions."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from tf_synflow import models
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.directional.curvature import (
    eigsh,
    random_share,
    share,
    top_eigenvectors,
)
from tf_synflow.experiments.directional.flat import FlatNetwork, Vector
from tf_synflow.experiments.directional.paths import (
    along,
    bezier,
    fitted_middle,
    straight,
)
from tf_synflow.experiments.directional.solutions import pruned_by_magnitude, train
from tf_synflow.experiments.recipe import Recipe, optimizer
from tf_synflow.keras2.imports import keras

Table = list[dict[str, Any]]
Kept = dict[int, Vector]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What to train, and how closely to look.

    Attributes:
      model: Name of the network; see `models.build`. It has no BatchNormalization.
      c: Strength of GRDA's threshold.
      mus: Growths of the threshold, one GRDA network for each.
      recipe: How all networks are trained; its momentum and its `grda` are replaced.
      looks: Numbers of epochs after which to measure the curvature. The last epoch is
        always added.
      eigenvectors: How many of the Hessian's top eigenvectors to take. Defaults to 10,
        as in the paper.
      points: Number of places at which to measure each path. Defaults to 61, as in the
        paper.
      curve_epochs: Passes over the images to fit each Bezier curve. Defaults to 100.
      curve_learning_rate: Learning rate for this fit. Defaults to 0.02.
    """

    model: str
    c: float
    mus: tuple[float, ...]
    recipe: Recipe
    looks: tuple[int, ...]
    eigenvectors: int = 10
    points: int = 61
    curve_epochs: int = 100
    curve_learning_rate: float = 0.02

    def check(self) -> None:
        """Refuses settings that cannot be carried out, before anything is done.

        Raises:
          ValueError: A setting is wrong; the error names it.
        """
        if not self.mus or len(set(self.mus)) < len(self.mus):
            raise ValueError(f"expected one mu or more, all different, got {self.mus}")
        if not all(0 < look <= self.recipe.epochs for look in self.looks):
            raise ValueError(
                f"looks must be epochs from 1 to {self.recipe.epochs}, got "
                f"{list(self.looks)}"
            )
        for name in ("eigenvectors", "curve_epochs"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} must be at least 1, got {getattr(self, name)}"
                )
        if self.points < 2:
            raise ValueError(f"points must be at least 2, got {self.points}")
        for mu in self.mus:
            optimizer(dataclasses.replace(self.recipe, grda=(self.c, mu)), steps=1)


class Tables(NamedTuple):
    """The results, as tables.

    Attributes:
      networks: A row for each network: its zeros, its losses and accuracies, the
        largest training loss on the paths to SGD's solution, and the share of its
        difference to SGD's solution that lies in the top eigenvectors. The share of a
        random direction is also given.
      paths: Losses and accuracies along each path, with t from 0 to 1. SGD's solution
        is at t = 1.
      shares: The same shares for each epoch.
      layers: The zeros of each weight tensor.
    """

    networks: Table
    paths: Table
    shares: Table
    layers: Table


def study(
    data: Dataset, settings: Settings, progress: Callable[[int, str], Any]
) -> Tables:
    """Trains by SGD and by GRDA from the same weights, and compares the solutions.

    Args:
      data: The images.
      settings: What to do.
      progress: A function from a total and a description to a progress bar. The bar is
        a context manager with a method `update()`, like `tqdm`.

    Raises:
      ModuleNotFoundError: SciPy is not installed.
      ValueError: A setting is out of its range, or the network does not fit.
    """
    settings.check()
    eigsh()  # If SciPy is missing, say so before the work is done.
    with _in_float64():
        model = models.build(settings.model, data.input_shape, data.classes)
    flat = FlatNetwork(model, data)
    looks = sorted({*settings.looks, settings.recipe.epochs})
    sgd, grda = _trained(data, settings, looks, progress)
    shares = _shares(flat, sgd, grda, settings, progress)
    networks, paths, layers = _compared(data, flat, sgd, grda, settings, progress)
    for row in networks[1:]:
        (last,) = (
            s["share"]
            for s in shares
            if (s["network"], s["mu"]) == (row["network"], row["mu"])
            and s["epoch"] == looks[-1]
        )
        row["share"], row["random_share"] = last, shares[0]["random_share"]
    return Tables(networks, paths, shares, layers)


@contextlib.contextmanager
def _in_float64() -> Iterator[None]:
    """Makes networks that are built in this context compute in float64."""
    policy, floatx = keras.mixed_precision.global_policy(), keras.backend.floatx()
    keras.backend.set_floatx("float64")
    keras.mixed_precision.set_global_policy("float64")
    try:
        yield
    finally:
        keras.backend.set_floatx(floatx)
        keras.mixed_precision.set_global_policy(policy)


def _trained(
    data: Dataset, settings: Settings, looks: list[int], progress: Any
) -> tuple[Kept, dict[float, Kept]]:
    """The weights of SGD, and of GRDA by mu, at the epochs to look at."""
    recipe = dataclasses.replace(settings.recipe, momentum=0.0, nesterov=False)
    rules: list[tuple[float, float] | None] = [None]
    rules += [(settings.c, mu) for mu in settings.mus]
    found = []
    for rule in rules:
        # All networks begin with the same weights, and have the same draws of Dropout.
        keras.utils.set_random_seed(recipe.seed)
        model = models.build(settings.model, data.input_shape, data.classes)
        name = "SGD" if rule is None else f"GRDA, mu {rule[1]:g}"
        with progress(recipe.epochs, f"training: {name}") as bar:
            own = dataclasses.replace(recipe, grda=rule)
            found.append(train(model, data, own, looks, bar))
    sgd, *grda = found
    return sgd, dict(zip(settings.mus, grda, strict=True))


def _shares(
    flat: FlatNetwork,
    sgd: Kept,
    grda: dict[float, Kept],
    settings: Settings,
    progress: Any,
) -> Table:
    rows = []
    count = settings.eigenvectors
    random = {"random_share": random_share(count, flat.size)}
    with progress(len(sgd), "eigenvectors") as bar:
        for epoch, weights in sgd.items():
            values, vectors = top_eigenvectors(flat, weights, count)
            sizes = {"largest": float(values[0]), "smallest": float(values[-1])}
            for mu, kept in grda.items():
                zeros = int(np.count_nonzero(kept[epoch] == 0))
                others = {
                    "grda": kept[epoch],
                    "magnitude": pruned_by_magnitude(weights, zeros),
                }
                for name, other in others.items():
                    row = {"network": name, "mu": mu, "epoch": epoch, "zeros": zeros}
                    row["share"] = share(other - weights, vectors)
                    rows.append({**row, **random, **sizes})
            bar.update()
    return rows


def _compared(
    data: Dataset,
    flat: FlatNetwork,
    sgd: Kept,
    grda: dict[float, Kept],
    settings: Settings,
    progress: Any,
) -> tuple[Table, Table, Table]:
    """The tables `networks` (still without the shares), `paths` and `layers`."""
    last = settings.recipe.epochs
    end = sgd[last]
    networks = [{**_described(flat, "sgd", None, end), **_nothing_between()}]
    paths, layers = [], []
    for mu, kept in grda.items():
        first = kept[last]
        zeros = int(np.count_nonzero(first == 0))
        magnitude = pruned_by_magnitude(end, zeros)
        with progress(settings.curve_epochs, f"curve: mu {mu:g}") as bar:
            middle = fitted_middle(
                flat,
                first,
                end,
                data,
                epochs=settings.curve_epochs,
                batch_size=settings.recipe.batch_size,
                learning_rate=settings.curve_learning_rate,
                seed=settings.recipe.seed,
                progress=bar,
            )
        curves = {
            ("grda", "straight"): straight(first, end),
            ("grda", "bezier"): bezier(first, middle, end),
            ("magnitude", "straight"): straight(magnitude, end),
        }
        highest = {}
        for (name, shape), curve in curves.items():
            rows = along(flat, curve, settings.points)
            highest[name, shape] = max(row["train_loss"] for row in rows)
            paths += [{"network": name, "mu": mu, "path": shape, **row} for row in rows]
        for name, vector in (("grda", first), ("magnitude", magnitude)):
            row = _described(flat, name, mu, vector)
            row["straight_max"] = highest[name, "straight"]
            row["bezier_max"] = highest.get((name, "bezier"), "")
            networks.append({**row, "share": "", "random_share": ""})
            layers += _zeros(flat, name, mu, vector)
    return networks, paths, layers


def _nothing_between() -> dict[str, str]:
    columns = ("straight_max", "bezier_max", "share", "random_share")
    return dict.fromkeys(columns, "")


def _described(
    flat: FlatNetwork, name: str, mu: float | None, vector: Vector
) -> dict[str, Any]:
    zeros = int(np.count_nonzero(vector == 0))
    row = {"network": name, "mu": "" if mu is None else mu, "weights": flat.size}
    row |= {"zeros": zeros, "sparsity": zeros / flat.size}
    for which in ("train", "test"):
        found = flat.quality(vector, which)
        row[f"{which}_loss"], row[f"{which}_accuracy"] = found
    return row


def _zeros(flat: FlatNetwork, name: str, mu: float, vector: Vector) -> Table:
    return [
        {
            "network": name,
            "mu": mu,
            "weight": weight,
            "size": value.size,
            "zeros": int(np.count_nonzero(value == 0)),
        }
        for weight, value in flat.parts(vector).items()
    ]
