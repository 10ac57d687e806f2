"""The types of masks, scores and plans."""

from collections.abc import Callable

import numpy as np

Masks = dict[str, np.ndarray]

Scores = dict[str, np.ndarray]

Scorer = Callable[[Masks], Scores]

# For each iteration, the weights that are ranked together and how many of them stay.
Plan = list[list[tuple[list[str], int]]]
