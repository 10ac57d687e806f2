"""Times SynFlow beside its floor, the bare gradient passes, for a list of networks.

python scripts/benchmarks/benchmark.py --models=vgg16_bn:32:100 --output=bench.json

Each network is timed in a process of its own, so that the peak memory is its own. All
three of --models, --ratios and --iterations are lists; every combination is measured,
so that growth with weights, depth and iterations can be read off the last column.
"""

import itertools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import timing as benchmarking
from absl import app, flags
from tqdm.auto import tqdm

from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.files.whole import written_whole
from tf_synflow.models import MODELS

_MODELS = flags.DEFINE_list(
    "models", ["vgg16_bn:32:100"], "Networks, as name:image size:classes."
)
_RATIOS = flags.DEFINE_list("ratios", ["100"], "Compression ratios.")
_ITERATIONS = flags.DEFINE_list("iterations", ["100"], "Numbers of iterations.")
_REPEATS = flags.DEFINE_integer(
    "repeats", 3, "Timings of floor and loop, in turn; 0: the loop once.", lower_bound=0
)
_DTYPE = flags.DEFINE_enum("dtype", "float64", ["float64", "float32"], "Computes in.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file for all that was measured.")
_ALONE = flags.DEFINE_bool("alone", False, "Internal: measure one case, print JSON.")


def _case() -> tuple[str, int, int]:
    name, size, classes = _MODELS.value[0].split(":")
    return name, int(size), int(classes)


def _measure_apart(model: str, ratio: str, iterations: str) -> dict:
    with tempfile.NamedTemporaryFile("r", suffix=".json") as file:
        command = [
            sys.executable, __file__, "--alone", f"--models={model}",
            f"--ratios={ratio}", f"--iterations={iterations}",
            f"--repeats={_REPEATS.value}", f"--dtype={_DTYPE.value}",
            f"--output={file.name}",
        ]  # fmt: skip
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"benchmark.py: {model} failed:\n{done.stderr[-2000:]}")
        return json.loads(Path(file.name).read_text())


@in_one_line
def main(argv: list[str]) -> None:
    """Times the networks that the flags name."""
    if len(argv) > 1:
        raise app.UsageError(f"unknown arguments: {argv[1:]}")
    for model in _MODELS.value:
        name, *rest = model.split(":")
        if name not in MODELS or len(rest) != 2 or not all(map(str.isdigit, rest)):
            raise app.UsageError(
                f"--models: {model!r} is not name:size:classes with a name of "
                f"{sorted(MODELS)}"
            )
    if _ALONE.value:
        ratio, iterations = float(_RATIOS.value[0]), int(_ITERATIONS.value[0])
        result = benchmarking.measure(
            *_case(), ratio, iterations, _REPEATS.value, _DTYPE.value
        )
        Path(_OUTPUT.value).write_text(json.dumps(result))
        return
    cases = list(itertools.product(_MODELS.value, _RATIOS.value, _ITERATIONS.value))
    results = []
    print(benchmarking.HEADER)
    for case in tqdm(cases, unit="network"):
        results.append(_measure_apart(*case))
        tqdm.write(benchmarking.row(results[-1]), file=sys.stdout)
    if _OUTPUT.value:
        with written_whole(_OUTPUT.value) as aside:
            aside.write_text(json.dumps(results, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    app.run(main)
