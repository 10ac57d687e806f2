"""Keras 3 on each of its backends, in processes of their own.

A process has one backend. Each process here makes the checks of a benchmark script, and
runs the example of the documentation. JAX and PyTorch are tried where they are
installed; the README's test command installs both.
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

BACKENDS = [
    backend
    for backend in ("tensorflow", "jax", "torch")
    if importlib.util.find_spec(backend)
]

_CHECKS = (
    *("--networks=small,resnet20", "--ratios=100", "--data_networks=small"),
    *("--shrunk=small", "--steps=2"),
)


def child(backend, *words):
    """Runs Python with words in a process of its own, on a backend."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(ROOT),
    }
    return subprocess.run(
        [sys.executable, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=environment,
    )


@pytest.fixture(scope="module", params=BACKENDS)
def found(request, tmp_path_factory):
    """What the checks found on a backend."""
    path = tmp_path_factory.mktemp(request.param) / "found.json"
    script = "scripts/benchmarks/keras3.py"
    done = child(request.param, script, *_CHECKS, f"--output={path}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"on {request.param}" in done.stdout
    return request.param, json.loads(path.read_text())


def test_masks_are_those_of_keras_2_in_every_bit(found):
    _, checks = found
    assert len(checks["masks"]) == 2 and len(checks["data"]) == 5
    for row in (*checks["masks"], *checks["data"]):
        assert row["differing"] == 0 and row["same names"] and row["kept"] > 0


def test_pruned_weights_are_zero_after_every_step_and_the_others_move(found):
    backend, checks = found
    ways = {row["trained by"] for row in checks["training"]}
    assert ways >= {
        "Adam",
        "averages (use_ema)",
        "mixed_float16",
        "a loop of one's own",
    }
    assert backend != "tensorflow" or "two devices, MirroredStrategy" in ways
    assert (
        backend != "jax"
        or {"2 devices, DataParallel", "2 devices, ModelParallel"} <= ways
    )
    assert backend != "torch" or "torch.optim, zero_pruned" in ways
    for row in checks["training"]:
        assert row["largest pruned weight"] == 0, row
        assert row["of them moved"] > 0.9 * row["kept"] > 0, row


def test_a_shrunk_network_computes_the_same(found):
    _, checks = found
    (row,) = checks["shrink"]
    assert row["shrunk"] < row["parameters"]
    assert row["outputs differ by"] < 1e-5
    assert row["trained 2 steps, then shrunk"] < 1e-5
    assert row["expand gives back"]


_EXPORT = """
import sys, pathlib, keras, numpy as np, tf_synflow
folder = pathlib.Path(sys.argv[1])
inputs = [keras.Input((8, 8, 2), name="a"), keras.Input((4,), name="b")]
x = keras.layers.Conv2D(8, 3, activation="relu")(inputs[0])
x = keras.layers.Concatenate()([keras.layers.Flatten()(x), 2 * inputs[1]])
model = keras.Model(inputs, [keras.layers.Dense(3)(x), keras.layers.Dense(2)(x)])
pruned = tf_synflow.prune(model, 5, criterion="magnitude")
for name in ("m.tflite", "folder", "m.onnx"):
    try:
        done = tf_synflow.export(pruned, folder / name)
        print(name, done.difference < 1e-5 < done.largest_output, done.nonzero)
    except ValueError as error:
        print(name, error)
"""


@pytest.mark.parametrize("backend", BACKENDS)
def test_exported_files_compute_what_keras_does(backend, tmp_path):
    done = child(backend, "-c", _EXPORT, str(tmp_path))
    assert done.returncode == 0, done.stderr[-3000:]
    tflite, folder, onnx = done.stdout.splitlines()[-3:]
    assert tflite.startswith("m.tflite True")
    assert folder.startswith("folder True")
    if backend == "jax":
        assert "Keras writes no ONNX files on the backend jax" in onnx
    else:
        assert onnx.startswith("m.onnx True")


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_example_of_the_documentation_learns_the_digits(backend, tmp_path):
    page = (ROOT / "docs" / "keras3.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    (tmp_path / "example.py").write_text(code)
    done = child(backend, str(tmp_path / "example.py"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert "27,061 of 270,608 kept" in done.stdout
    assert float(re.search(r"test accuracy ([\d.]+)%", done.stdout)[1]) >= 98
