"""Masks as text, for the configuration of a layer: bits, deflated, in base64."""

import base64
import zlib
from typing import Any

import numpy as np

# Deflate's fastest level. Others save a few percent and take up to 30 times longer.
_LEVEL = 1


def packed(mask: np.ndarray) -> dict[str, Any]:
    """The mask as a dictionary that JSON can hold."""
    bits = zlib.compress(np.packbits(mask).tobytes(), _LEVEL)
    return {"shape": list(mask.shape), "bits": base64.b64encode(bits).decode("ascii")}


def unpacked(content: dict[str, Any]) -> np.ndarray:
    """The mask that `packed` was given.

    Raises:
      ValueError: `content` is damaged.
    """
    shape = tuple(int(size) for size in content["shape"])
    size = int(np.prod(shape, dtype=np.int64))
    if size < 0 or min(shape, default=0) < 0:
        raise ValueError(f"a mask cannot have the shape {shape}")
    wanted = -(-size // 8)
    # Unpacks at most one byte more than the shape needs, even from a damaged file.
    inflate = zlib.decompressobj()
    data = inflate.decompress(base64.b64decode(content["bits"]), wanted + 1)
    if len(data) != wanted:
        raise ValueError(
            f"the mask of a weight of shape {shape} is damaged: it has {len(data)} "
            f"bytes, expected {wanted}"
        )
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=size)
    return bits.astype(bool).reshape(shape)
