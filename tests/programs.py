"""Runs programs, in processes of their own, as if from the command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

# Runs a program again and again in one process: TensorFlow takes seconds to import.
_AGAIN_AND_AGAIN = """
import importlib, json, sys
from absl import flags
name, commands = sys.argv[1], json.loads(sys.argv[2])
sys.argv = [name]  # absl asks it whose flags are whose
from tf_synflow.commands import COMMANDS, run
if name not in COMMANDS:
    sys.path.insert(0, "scripts/benchmarks")
    script = importlib.import_module(name)
for argv in commands:
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
    except (SystemExit, flags.Error) as error:
        print("exit", error or 0, file=sys.stderr)
"""


def answers(script, commands):
    """What a program prints for each list of flags: (stdout, stderr).

    The last line of stderr is "exit", and with what. `script` is a command of
    tf-synflow, or the name of a file in scripts/benchmarks/.
    """
    done = subprocess.run(
        [sys.executable, "-c", _AGAIN_AND_AGAIN, script, json.dumps(commands)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    streams = [s.split("#" * 9 + "\n")[1:] for s in (done.stdout, done.stderr)]
    return list(zip(*streams, strict=True))


def refusals(script, commands):
    """What a program says to each list of flags that it should refuse."""
    said = [error for _, error in answers(script, commands)]
    assert len(said) == len(commands)
    assert not [error for error in said if error.endswith("exit 0\n")]
    return said


def run(command, *flags, path=()):
    """Runs a command of tf-synflow once; `path` is where Python looks for more."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *path])}
    words = [sys.executable, "-m", "tf_synflow", command, *map(str, flags)]
    return subprocess.run(
        words, cwd=ROOT, capture_output=True, text=True, env=environment
    )
