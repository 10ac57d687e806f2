"""What importing and using tf_synflow leaves behind, and how long it takes.

python scripts/benchmarks/imports.py

Each line is a fresh process: what it imports and in which order, what `tf.keras.Model`
is then, the environment variable TF_USE_LEGACY_KERAS before and after, and seconds. In
each, a small tf_keras model is pruned at the end, or `tf_synflow` is only imported.
"""

import os
import subprocess
import sys

from absl import app

from tf_synflow.commands.plain_errors import in_one_line

USE = (
    "import tf_keras\n"
    "m = tf_keras.Sequential([tf_keras.Input((3,)), tf_keras.layers.Dense(4)])\n"
    "tf_synflow.prune(m, 2, criterion='magnitude')\n"
)
ORDERS = {
    "tf_synflow alone": "import tf_synflow\n",
    "tf_synflow, used, tensorflow": "import tf_synflow\n" + USE,
    "tensorflow, tf_synflow, used": "import tensorflow as tf\nimport tf_synflow\n"
    + USE,
    "keras, tf_synflow, used": "import keras\nimport tf_synflow\n" + USE,
    "tf_keras, tf_synflow, used": "import tf_keras\nimport tf_synflow\n" + USE,
}
PROGRAM = """
import os, sys, time
before, start = os.environ.get("TF_USE_LEGACY_KERAS"), time.perf_counter()
{order}
seconds = time.perf_counter() - start
loaded = [m for m in ("tensorflow", "keras", "tf_keras") if m in sys.modules]
import tensorflow as tf
model = tf.keras.Model
after = os.environ.get("TF_USE_LEGACY_KERAS")
print(f"{{model.__module__}}.{{model.__name__}}", before, after, f"{{seconds:.2f}}",
      "+".join(loaded) or "nothing", sep=" | ")
"""


@in_one_line
def main(argv: list[str]) -> None:
    """Prints a row for each order of import."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    print("| imports | tf.keras.Model | before | after | seconds | loaded |")
    print("|---" * 6 + "|")
    for legacy in (None, "1"):
        environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
        environment.pop("TF_USE_LEGACY_KERAS", None)
        if legacy:
            environment["TF_USE_LEGACY_KERAS"] = legacy
        for name, order in ORDERS.items():
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM.format(order=order)],
                capture_output=True,
                text=True,
                env=environment,
            )
            if done.returncode:
                raise ValueError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
            print(f"| {name} | {done.stdout.strip()} |", flush=True)


if __name__ == "__main__":
    app.run(main)
