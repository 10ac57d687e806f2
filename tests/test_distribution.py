"""Strategies: which one a name means, and two processes that train together."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tf_synflow import distribution
from tf_synflow._compat import tf

ROOT = Path(__file__).parents[1]


def test_names_and_what_they_mean_on_two_logical_cpu_devices():
    assert distribution.strategy("none", 7).num_replicas_in_sync == 1
    assert distribution.strategy("auto", 7).num_replicas_in_sync == 1  # no GPU here
    mirrored = distribution.strategy("mirrored", 8)
    assert isinstance(mirrored, tf.distribute.MirroredStrategy)
    assert mirrored.num_replicas_in_sync == 2
    assert distribution.is_chief(mirrored)
    with pytest.raises(ValueError, match="2 replicas cannot share a batch of 7 images"):
        distribution.strategy("mirrored", 7)
    with pytest.raises(ValueError, match="unknown distribute 'gpus'"):
        distribution.strategy("gpus", 8)


def cluster(workers, task):
    return json.dumps({"cluster": {"worker": workers}, "task": task})


FIRST = {"type": "worker", "index": 0}


@pytest.mark.parametrize(
    ("config", "wrong"),
    [
        (None, "it is not set"),
        ("", "it is no JSON"),
        ("{", "it is no JSON"),
        ("[]", "it has no 'cluster'"),
        ('{"task": 1}', "it has no 'cluster'"),
        (cluster([], FIRST), "'worker' is no list of addresses"),
        (cluster("a:1", FIRST), "'worker' is no list of addresses"),
        (cluster(["localhost"], FIRST), "address 'localhost' is not host:port"),
        (cluster(["a:1", "b:"], FIRST), "address 'b:' is not host:port"),
        (cluster([":1"], FIRST), "address ':1' is not host:port"),
        (cluster(["a:70000"], FIRST), "address 'a:70000' is not host:port"),
        (cluster(["a:1", "a:1"], FIRST), "stands there twice"),
        (cluster(["a:1"], None), "has no 'type' that is among"),
        (cluster(["a:1"], {"type": "chief", "index": 0}), "has no 'type' that is"),
        (cluster(["a:1"], {"type": "worker"}), "the 'index' None, not one from 0 to 0"),
        (cluster(["a:1"], {"type": "worker", "index": 1}), "the 'index' 1, not one"),
    ],
)
def test_a_cluster_that_is_not_described_is_asked_for(config, wrong, monkeypatch):
    if config is None:
        monkeypatch.delenv("TF_CONFIG", raising=False)
    else:
        monkeypatch.setenv("TF_CONFIG", config)
    said = f"environment variable TF_CONFIG, which is .*: .*{wrong}.* Expected JSON"
    with pytest.raises(ValueError, match=said):
        distribution.strategy("multi_worker", 8)


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


# A run of scripts/train.py's, whose every process also puts its weights aside.
WORKER = """
import sys, json, pathlib, numpy as np
from tf_synflow import PruningPolicy, experiment
from tf_synflow._compat import keras
from tf_synflow.data import Dataset
from tf_synflow.training import Recipe
write = experiment._write
def both(workdir, pruned, title, results):
    np.savez(sys.argv[2], *[w.numpy() for w in pruned.weights])
    write(workdir, pruned, title, results)
experiment._write = both
generator = np.random.default_rng(0)
small = lambda n: (generator.random((n, 8, 8, 3), "float32"), np.arange(n) % 10)
data = Dataset(small(64), small(20), 10, padding=1, mirrored=True)
experiment.data_lib.load = lambda *_: data
experiment.models.build = lambda *_: keras.Sequential([
    keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="conv"),
    keras.layers.BatchNormalization(), keras.layers.ReLU(), keras.layers.Flatten(),
    keras.layers.Dense(10, name="fc"),
])
results = experiment.run(
    pathlib.Path(sys.argv[1]), model="small", dataset="noise",
    pruning=experiment.Pruning(10, PruningPolicy(iterations=3)),
    recipe=Recipe(2, 16, 0.1, 0),
    place=experiment.Place(distribute="multi_worker"), flags={"a": 1},
)
print("RESULTS", json.dumps(results["train"]["final_accuracy"]))
"""


def test_two_processes_end_with_the_same_weights_and_one_set_of_files(tmp_path):
    workers = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    processes = []
    for index in range(2):
        task = {"type": "worker", "index": index}
        config = {"cluster": {"worker": workers}, "task": task}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps(config),
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(tmp_path),
            # What TensorFlow generates there would be compiled, and left behind.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        command = [sys.executable, "-c", WORKER, tmp_path / "run"]
        processes.append(
            subprocess.Popen(
                [*map(str, command), str(tmp_path / f"weights{index}.npz")],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    answers = [process.communicate(timeout=300) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], answers[0][1] + answers[1][1]
    said = [out.split("RESULTS")[1] for out, _ in answers]
    assert said[0] == said[1]
    first, second = (np.load(tmp_path / f"weights{i}.npz") for i in range(2))
    assert len(first.files) == len(second.files) > 8
    for name in first.files:
        assert first[name].tobytes() == second[name].tobytes()
    masks = np.load(tmp_path / "run" / "masks.npz")
    assert sum(int(masks[name].sum()) for name in masks.files) == 310  # of 3,096
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == [
        "history.csv", "masks.npz", "model.keras", "results.json", "run.png",
        "tensorboard",
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "run", "weights0.npz", "weights1.npz"
    ]  # fmt: skip
