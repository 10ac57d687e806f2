"""Which heads of MultiHeadAttention, and which units of a head, can be taken out.

The kernels of a layer with H heads, K units of query and key and C units of value are

    query, key (D, H, K)    value (D, H, C)    attention_output (H, C, ...)

A key unit without weights adds the same number to all logits of a query, and softmax
ignores such a number. So the key unit can be removed together with its query unit,
whatever the biases are. A query unit without weights can be removed too, with its key
unit, but only if there are no biases: the bias of the query unit would learn. A value
unit can be removed if no weight reads it. It can also be removed if no weight feeds it
and there are no biases. A head can be removed if none of its value units is left. All
heads have equal numbers of units, so a head with fewer alive units keeps dead units
too.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from tf_synflow.network import Call, Network

KIND = "MultiHeadAttention"

_PARTS = ("query", "key", "value", "attention_output")


class Heads(NamedTuple):
    """The heads and units of a layer that stay.

    Attributes:
      heads: Places of the heads that stay, `(H',)`.
      keys: For each of these heads the places of its query and key units, `(H', K')`.
      values: For each of these heads the places of its value units, `(H', C')`.
    """

    heads: np.ndarray
    keys: np.ndarray
    values: np.ndarray

    def places(self, short: str, shape: tuple[int, ...]) -> tuple | None:
        """An index of the part of a weight that stays; None if all of it stays."""
        part, _, kind = short.rpartition("/")
        if part not in _PARTS or (part == "attention_output" and kind == "bias"):
            return None
        units = self.keys if part in ("query", "key") else self.values
        if part == "attention_output":
            rest = [np.arange(n) for n in shape[2:]]
            after = np.ix_(*rest) if rest else ()
            ones = (1,) * len(rest)
            heads = self.heads.reshape(-1, 1, *ones)
            return (heads, units.reshape(*units.shape, *ones), *after)
        if kind == "bias":
            return self.heads[:, None], units
        return np.arange(shape[0])[:, None, None], self.heads[None, :, None], units


def find_heads(network: Network, call: Call) -> Heads | None:
    """The heads and units of a layer that stay; None if all heads and units stay.

    Args:
      network: The network; if it has no masks, weights that are 0 count as pruned.
      call: A call of any layer.
    """
    if call.kind != KIND or "gate/kernel" in call.weights:
        return None
    kept = {part: _kept(network, f"{call.name}/{part}/kernel") for part in _PARTS}
    query, key, value = (kept[part].any(0) for part in _PARTS[:3])
    output = kept["attention_output"]
    output = output.reshape(*output.shape[:2], -1).any(-1)
    biased = "query/bias" in call.weights
    values = output & (value | biased)
    keys = key & (query | biased)
    stay = values.any(1)
    stay[0] |= not stay.any()
    heads = np.flatnonzero(stay)
    found = Heads(heads, _units(keys[heads]), _units(values[heads]))
    whole = (query.shape[0], query.shape, value.shape)
    if (heads.size, found.keys.shape, found.values.shape) == whole:
        return None
    return found


def _units(alive: np.ndarray) -> np.ndarray:
    """The places of equally many units in each head: alive units first, then others."""
    wanted = max(int(alive.sum(1).max()), 1)
    order = np.argsort(~alive, 1, kind="stable")
    return np.sort(order[:, :wanted], 1)


def _kept(network: Network, name: str) -> np.ndarray:
    masks = network.masks
    if name in masks:
        return masks[name]
    if masks:  # a weight that was not pruned may be 0 now and another number later
        return np.ones(network.weights[name].shape, bool)
    return network.weights[name].numpy() != 0


def smaller_config(config: Mapping[str, Any], heads: Heads) -> dict[str, Any]:
    """The configuration of the layer with the heads and units that are left."""
    return {
        **config,
        "num_heads": int(heads.heads.size),
        "key_dim": int(heads.keys.shape[1]),
        "value_dim": int(heads.values.shape[1]),
    }
