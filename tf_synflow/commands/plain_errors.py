"""One line instead of a traceback, whenever a program fails or is stopped.

A program imports this before TensorFlow. Importing TensorFlow takes seconds, and Ctrl-C
may come during that time too.
"""

import functools
import inspect
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any


def in_one_line(
    main: Callable[[list[str]], Any],
    name: str | None = None,
    say: Callable[[str], str] = str,
) -> Callable[[list[str]], Any]:
    """Makes `main` end the program with one line when something cannot be done.

    These errors come from outside the program: a flag, a file, a variable of the
    environment, a full disk, another process that died. Any other error is a mistake in
    the program, and keeps its traceback.

    Args:
      main: A function of the words of the command line.
      name: What the program is called. Defaults to the name of the file of `main`.
      say: Turns a message of the library into one of the program. Defaults to no
        change.
    """
    name = name or Path(inspect.getfile(main)).name

    @functools.wraps(main)
    def safe(argv: list[str]) -> Any:
        try:
            return main(argv)
        except (ValueError, TypeError, OSError, ModuleNotFoundError) as error:
            sys.exit(f"{name}: {say(str(error))}")
        except MemoryError:
            sys.exit(f"{name}: there is not enough memory")
        except Exception as error:
            tensorflow = sys.modules.get("tensorflow")
            if tensorflow is None or not isinstance(error, tensorflow.errors.OpError):
                raise
            from tf_synflow.checks import first_line

            said = f"{name}: TensorFlow says: {first_line(error)}"
            if "TF_CONFIG" in os.environ and isinstance(
                error,
                (tensorflow.errors.UnavailableError, tensorflow.errors.AbortedError),
            ):
                said += ". Has a process ended that TF_CONFIG lists?"
            sys.exit(said)

    return safe


def _hook(
    kind: type[BaseException], error: BaseException, trace: TracebackType | None
) -> None:
    """Python calls this function for an error that nothing caught."""
    if issubclass(kind, KeyboardInterrupt):
        print(f"{Path(sys.argv[0]).name}: stopped by Ctrl-C", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _hook
# TensorFlow logs much about itself, including tracebacks of errors that it also raises.
logging.getLogger("tensorflow").setLevel(logging.WARNING)
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "1")
if multiprocessing.parent_process() is not None:
    # The process that started this one gets Ctrl-C as well, and prints the message.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
