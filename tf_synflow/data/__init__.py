"""Data sets by name, as arrays ready to train on."""

from collections.abc import Callable

from tf_synflow.data.dataset import Dataset
from tf_synflow.data.digits import digits
from tf_synflow.masks import check_choice

DATASETS: dict[str, Callable[[], Dataset]] = {"digits": digits}


def load(name: str) -> Dataset:
    """Loads a data set.

    Args:
      name: "digits".

    Returns:
      The `Dataset`.

    Raises:
      ValueError: There is no data set of that name.
    """
    check_choice("dataset", name, DATASETS)
    return DATASETS[name]()


__all__ = ["DATASETS", "Dataset", "load"]
