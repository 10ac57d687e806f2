"""Finds, counts and reports kernels that stay dense, because nothing prunes them."""

import math
import warnings
from collections.abc import Collection, Mapping
from fractions import Fraction

from tf_synflow.checks import DenseKernelsWarning
from tf_synflow.masks.counts import kept_count
from tf_synflow.network import Network

# Words in the names of weights that are no kernels, whatever their rank: weights that
# are added, weights that multiply one channel, and learned tokens and positions.
_NO_KERNELS = frozenset(
    {
        *("bias", "beta", "gamma", "scale", "moving", "token", "tokens", "cls"),
        *("pos", "position", "positions", "positional"),
    }
)

_WORTH_A_WORD = 0.01  # share of the trainable weights


def dense_kernels(network: Network, pruned: Collection[str]) -> dict[str, int]:
    """Name to size of the trainable kernels that are not pruned.

    Args:
      network: The network.
      pruned: Names of the weights that are pruned.
    """
    return {
        name: math.prod(variable.shape)
        for name, variable in network.weights.items()
        if name not in pruned
        and variable.trainable
        and len(variable.shape) > 1
        and variable.shape[0] > 1
        and _NO_KERNELS.isdisjoint(name.rpartition("/")[2].lower().split("_"))
    }


def trainable_size(network: Network) -> int:
    """How many trainable weights there are."""
    weights = network.weights.values()
    return sum(math.prod(v.shape) for v in weights if v.trainable)


def warn_of_dense(
    network: Network, pruned: Collection[str], excluded: Collection[str]
) -> None:
    """Warns of kernels that are not pruned, if they hold 1 % of the weights or more.

    Args:
      network: The network.
      pruned: Names of the weights that are pruned.
      excluded: Paths of the layers that the user wants to leave alone.
    """
    kernels = {
        name: size
        for name, size in dense_kernels(network, pruned).items()
        if network.owners[name].name not in excluded
    }
    dense, every = sum(kernels.values()), trainable_size(network)
    if not kernels or dense < _WORTH_A_WORD * every:
        return
    ways = "Write exclude= for their layers if you want that"
    asked = {network.owners[n].class_name for n in kernels if n in network.on_request}
    if asked:
        ways += (
            "; or name all classes of layers to prune in layer_types=, and "
            f"{', '.join(sorted(asked))} among them"
        )
    if any(network.owners[name].kind is None for name in kernels):
        ways += (
            "; or give a layer class of your own a method get_prunable_weights that "
            "returns its kernels"
        )
    warnings.warn(
        f"{dense:,} of {every:,} trainable weights ({100 * dense / every:.3g} %) are "
        f"kernels that are not pruned and stay dense: {listed(kernels)}. {ways}",
        DenseKernelsWarning,
        stacklevel=4,
    )


def listed(kernels: Mapping[str, int], most: int = 8) -> str:
    """Names with sizes; of many names only the first `most`."""
    said = [f"{name} ({size:,})" for name, size in list(kernels.items())[:most]]
    if len(kernels) > most:
        said.append(f"and {len(kernels) - most} more")
    return ", ".join(said)


def ratio_of_prunable(
    network: Network, sizes: Mapping[str, int], ratio: float
) -> Fraction:
    """The fraction of the prunable weights to remove for a ratio of all kernels.

    Args:
      network: The network.
      sizes: Name to size of each weight that is pruned.
      ratio: See `masks.counts.pruned_fraction`; here of all kernels, pruned or not.

    Raises:
      ValueError: `ratio` keeps so few weights that the other kernels use them up.
    """
    kernels = dense_kernels(network, sizes)
    own, dense = sum(sizes.values()), sum(kernels.values())
    kept = kept_count(own + dense, ratio)
    if kept <= dense:
        highest = (own + dense) / (dense + len(sizes))
        raise ValueError(
            f"ratio={ratio} of all {own + dense:,} weights in kernels keeps {kept:,}, "
            f"but {dense:,} of them are not pruned: {listed(kernels)}. The highest "
            f"ratio that can be reached is about {highest:.4g}; or take "
            'ratio_of="prunable"'
        )
    return Fraction(own + dense - kept, own)
