"""Checks of the optimizers' arguments, the same for Keras 2 and Keras 3."""

from collections.abc import Mapping
from typing import Any

from tf_synflow.checks import check_count


def check_sgd(learning_rate: Any, momentum: float, l2: float) -> None:
    """Refuses arguments of SGD that are out of range.

    Raises:
      ValueError: An argument is out of range.
    """
    _check_rate(learning_rate)
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be within [0, 1), got {momentum!r}")
    if not 0 <= l2 < float("inf"):
        raise ValueError(f"l2 must be finite and not negative, got {l2!r}")


def check_grda(
    learning_rate: Any, c: float, mu: float, others: Mapping[str, Any]
) -> None:
    """Refuses arguments of GRDA that are out of range, or that it does not have.

    Raises:
      ValueError: An argument is out of range, or GRDA does not have it.
    """
    _check_rate(learning_rate)
    if not 0 <= c < float("inf"):
        raise ValueError(f"c must be finite and not negative, got {c!r}")
    if not 0 < mu < 1:
        raise ValueError(f"mu must be within (0, 1), got {mu!r}")
    for unwanted in ("weight_decay", "use_ema"):
        if others.get(unwanted):
            raise ValueError(
                f"GRDA takes no {unwanted}={others[unwanted]!r}: its weights "
                "follow from v and the threshold alone, and would not stay 0"
            )


def check_garipov(learning_rate: float, epochs: int, steps: int) -> None:
    """Refuses arguments of the learning rate of Garipov et al. that are out of range.

    Raises:
      TypeError: A count is no whole number.
      ValueError: A number is out of range.
    """
    _check_rate(learning_rate)
    check_count("epochs", epochs)
    check_count("steps", steps)


def _check_rate(learning_rate: Any) -> None:
    if isinstance(learning_rate, (int, float)) and not 0 <= learning_rate < 1e30:
        raise ValueError(
            f"learning_rate must be finite and not negative, got {learning_rate!r}"
        )
