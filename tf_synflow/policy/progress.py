"""Progress bars."""

from collections.abc import Callable, Iterable

from tqdm.auto import tqdm


def progress_bar(
    what: str, unit: str, shown: bool, leave: bool = True
) -> Callable[[Iterable], Iterable]:
    """Gives a function that shows how far an iteration is.

    Args:
      what: What is being done.
      unit: What is counted.
      shown: Whether it is shown at all; if so, after a second, or after three if it
        does not stay.
      leave: Whether it stays when it is done. Defaults to True.
    """

    def bar(items: Iterable) -> Iterable:
        return tqdm(
            items,
            desc=what,
            unit=unit,
            delay=1 if leave else 3,
            mininterval=0.5,
            leave=leave,
            disable=not shown,
        )

    return bar
