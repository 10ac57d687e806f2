"""Lets only one process at a time work in a folder."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

LOCK = ".tf_synflow.lock"


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the lock of a folder; the system releases it however the process ends.

    Raises:
      BlockingIOError: Another process holds the lock.
    """
    path = workdir / LOCK
    while True:
        lock = open(path, "a")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.close()
            raise BlockingIOError(
                f"another process is at work in {str(workdir)!r}; wait for it, or "
                "choose another --workdir"
            ) from error
        # Between opening and locking, the process before may have deleted the file.
        if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            break
        lock.close()
    with lock:
        try:
            yield
        finally:
            path.unlink()
