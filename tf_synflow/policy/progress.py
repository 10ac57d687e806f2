"""Progress bars."""

from collections.abc import Callable, Iterable

from tqdm.auto import tqdm


def progress_bar(
    what: str, unit: str, shown: bool, leave: bool = True
) -> Callable[[Iterable], Iterable]:
    """Makes a function that shows a progress bar for an iteration.

    Args:
      what: What is being done.
      unit: What is counted.
      shown: Whether the bar is shown at all. It appears after one second, or after
        three seconds if `leave` is False.
      leave: Whether the bar stays when the iteration is done. Defaults to True.
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
