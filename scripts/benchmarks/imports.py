"""What importing and using tf_synflow leaves behind, and how long it takes.

python scripts/benchmarks/imports.py

Each line is a fresh process: what it imports and in which order, what `tf.keras.Model`
is then, the environment variable TF_USE_LEGACY_KERAS before and after, and seconds. In
each, a small model is pruned at the end, or `tf_synflow` is only imported. First of
Keras 2, then of Keras 3 on each backend that is installed.
"""

import importlib.util
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
USE_3 = (
    "import keras\n"
    "m = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])\n"
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
# Orders for Keras 3, which are tried on each backend that is installed.
ORDERS_3 = {
    "keras alone": "import keras\n",
    "keras, tf_synflow": "import keras\nimport tf_synflow\n",
    "keras, tf_synflow, used": "import keras\nimport tf_synflow\n" + USE_3,
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


def line(name: str, order: str, **settings: str) -> str:
    """Carries out imports in a fresh process, and gives the row of the table."""
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(order=order)],
        capture_output=True,
        text=True,
        env={**environment, **settings},
        check=True,
    )
    return f"| {name} | {done.stdout.strip().splitlines()[-1]} |"


@in_one_line
def main(argv: list[str]) -> None:
    """Prints a row for each order of import."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    print("| imports | tf.keras.Model | before | after | seconds | loaded |")
    print("|---" * 6 + "|")
    for legacy in ({}, {"TF_USE_LEGACY_KERAS": "1"}):
        for name, order in ORDERS.items():
            print(line(name, order, **legacy), flush=True)
    for backend in ("tensorflow", "jax", "torch"):
        if importlib.util.find_spec(backend):
            for name, order in ORDERS_3.items():
                row = line(f"{backend}: {name}", order, KERAS_BACKEND=backend)
                print(row, flush=True)


if __name__ == "__main__":
    app.run(main)
