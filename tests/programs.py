"""Runs programs, in processes of their own, as if from the command line."""

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Runs programs one after the other in one process: TensorFlow takes seconds to import.
_AGAIN_AND_AGAIN = """
import importlib, json, sys
from absl import flags
from tf_synflow import commands
from tf_synflow.commands import COMMANDS, run
def forget(last):  # or the next program would be asked for the last one's flags too
    for module, own in [*flags.FLAGS.flags_by_module_dict().items()]:
        if module == last or module.startswith("tf_synflow.commands."):
            for flag in [*own]:
                delattr(flags.FLAGS, flag.name)
            sys.modules.pop(module, None)
            vars(commands).pop(module.split(".")[-1], None)
last = None
for name, *argv in json.loads(sys.argv[1]):
    if name != last:
        forget(last)
    last = name
    sys.argv = [name]  # absl asks it whose flags are whose
    if name not in COMMANDS:
        sys.path.insert(0, "scripts/benchmarks")
        script = importlib.import_module(name)
    flags.FLAGS.unparse_flags()
    for flag in flags.FLAGS:
        flags.FLAGS[flag].unparse()
    for stream in (sys.stdout, sys.stderr):
        print("#" * 9, file=stream, flush=True)
    try:
        if name in COMMANDS:
            run(name, argv)
        else:
            script.main(flags.FLAGS([name, *argv]))
        print("exit 0", file=sys.stderr)
    except SystemExit as ended:
        print("exit", ended.code or 0, file=sys.stderr)
    except flags.Error as error:
        print("exit", error, file=sys.stderr)
"""


def answers(commands, path=(), before=""):
    """What programs print that run one after the other in one process.

    Args:
      commands: Of each its words: a command of tf-synflow, or the name of a file in
        scripts/benchmarks/, and its flags.
      path: Where Python looks for more.
      before: A program that the process runs before all of them.

    Returns:
      (stdout, stderr) of each. The last line of stderr is "exit", and with what.
    """
    words = [list(map(str, command)) for command in commands]
    done = subprocess.run(
        [sys.executable, "-c", before + _AGAIN_AND_AGAIN, json.dumps(words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *path])},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    streams = [s.split("#" * 9 + "\n")[1:] for s in (done.stdout, done.stderr)]
    assert [len(stream) for stream in streams] == [len(commands)] * 2
    return list(zip(*streams, strict=True))


def refused(said):
    """What programs say that should refuse, from what `answers` gives of them."""
    errors = [error for _, error in said]
    assert not [error for error in errors if error.endswith("exit 0\n")]
    return errors


def run(command, *flags, path=()):
    """Runs a command of tf-synflow once; `path` is where Python looks for more."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *path])}
    words = [sys.executable, "-m", "tf_synflow", command, *map(str, flags)]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=environment
    )


@contextlib.contextmanager
def largest_file(size):
    """Within it, this process can write no file of more bytes, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores the signal that comes along, and so a write fails.
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
