"""Measures how much of a difference of weights lies where the loss curves most."""

import math
from typing import Any

import numpy as np

from tf_synflow.experiments.directional.flat import FlatNetwork, Vector


def eigsh() -> Any:
    """SciPy's Lanczos eigenvalue solver; an error says how to install SciPy."""
    try:
        from scipy.sparse.linalg import eigsh
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "eigenvectors are found by SciPy, which is not installed: "
            "pip install 'tf_synflow[demo]'"
        ) from error
    return eigsh


def top_eigenvectors(
    flat: FlatNetwork, vector: Vector, count: int, tolerance: float = 1e-4
) -> tuple[np.ndarray, np.ndarray]:
    """The largest eigenvalues, and eigenvectors, of the Hessian of the training loss.

    Args:
      flat: The network.
      vector: Weights of the network.
      count: How many eigenvalues, fewer than there are weights.
      tolerance: Allowed distance of H u from the eigenvalue times u, over the
        eigenvalue. Defaults to 1e-4.

    Returns:
      The eigenvalues, the largest first, and an array `(weights, count)` whose columns
      are the eigenvectors, of length 1.
    """
    from scipy.sparse.linalg import LinearOperator

    flat.set(vector)
    operator = LinearOperator(
        (flat.size, flat.size),
        matvec=lambda v: flat.hessian_times(v.ravel()),
        dtype="f8",
    )
    # Without v0, SciPy would begin at another random vector each time.
    start = np.random.default_rng(0).standard_normal(flat.size)
    values, vectors = eigsh()(operator, count, which="LA", v0=start, tol=tolerance)
    order = np.argsort(-values)
    return values[order], vectors[:, order]


def share(difference: Vector, vectors: np.ndarray) -> float:
    """The share of a vector's length that lies in the span of orthonormal columns.

    The share is |P d| / |d|, and 0 for d = 0. (The paper's plot shows smaller shares,
    by a factor of the root of the number of columns: it counts |d|^2 once for each
    column.)
    """
    length = float(np.linalg.norm(difference))
    return float(np.linalg.norm(vectors.T @ difference)) / length if length else 0.0


def random_share(count: int, size: int) -> float:
    """What `share` is on average for a random direction: sqrt(count / size).

    Strictly, it is the root of the mean of the square.
    """
    return math.sqrt(count / size)
