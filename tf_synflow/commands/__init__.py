"""The programs: `tf-synflow prune ...`, `python -m tf_synflow prune ...`.

Each module here is one program: its flags, and `main`, which calls the library and
prints the result. `run` turns errors of the library into a line of text.
"""

import importlib
import re
import sys
from collections.abc import Sequence

from tf_synflow.commands.flag_files import with_named_flag_files
from tf_synflow.commands.plain_errors import in_one_line

COMMANDS = {
    "prune": "prunes a saved model without training it",
    "report": "says what is left of a saved model, as a table or a page",
    "export": "writes a saved model as a file that runs without Keras",
    "train": "prunes a new network, trains it, and writes the results",
    "sweep": "carries out a grid of runs, and sums up the results",
    "figures": "draws the figures of the SynFlow paper",
    "gradient_flow": "measures what pruning does to a network's training",
    "directional": "shows how GRDA's solution lies to that of SGD",
}

_USAGE = "\n".join(
    [
        "usage: tf-synflow COMMAND [FLAGS]",
        "",
        *(f"  {name:13} {what}" for name, what in COMMANDS.items()),
        "",
        "tf-synflow COMMAND --help lists the flags of a command.",
    ]
)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command named by the first argument.

    Args:
      argv: The words of the command line, the program's name first. Defaults to
        `sys.argv`.
    """
    program, *words = sys.argv if argv is None else argv
    if words[:1] in ([], ["help"], ["--help"], ["-h"]):
        print(_USAGE)
        return
    if words[0] not in COMMANDS:
        sys.exit(f"tf-synflow: there is no command {words[0]!r}\n\n{_USAGE}")
    run(words[0], words[1:])


def run(name: str, words: Sequence[str] | None = None) -> None:
    """Runs one command.

    Args:
      name: One of `COMMANDS`.
      words: Flags of the command. Defaults to those of the command line.
    """
    from absl import app, flags

    sys.argv = [f"tf-synflow {name}", *(sys.argv[1:] if words is None else words)]
    command = importlib.import_module(f"tf_synflow.commands.{name}")
    own = flags.FLAGS.get_key_flags_for_module(command.__name__)
    # absl's --help lists the flags of the main program, which absl knows by name.
    for flag in own:
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    sys.modules["__main__"].__doc__ = command.__doc__

    def checked(argv: list[str]) -> None:
        if len(argv) > 1 and not getattr(command, "TAKES_WORDS", False):
            raise app.UsageError(f"unknown arguments: {argv[1:]}")
        command.main(argv)

    names = {flag.name for flag in own}
    safe = in_one_line(checked, sys.argv[0], lambda said: as_flags(said, names))
    app.run(safe, with_named_flag_files(sys.argv))


def as_flags(message: str, names: set[str]) -> str:
    """A message of the library, with the names of arguments written as flags.

    `ratio=0.5` becomes `--ratio=0.5`, if `ratio` is among the names.
    """
    return re.sub(
        r"(?<![\w.-])([a-z_]+)(?==)",
        lambda match: f"--{match[1]}" if match[1] in names else match[1],
        message,
    )
