"""Strategies: which one a name means, and two processes that train together."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from tf_synflow.experiments import distribution
from tf_synflow.experiments.checkpoints import read_history
from tf_synflow.keras2.imports import keras

ROOT = Path(__file__).parents[2]


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
        (cluster(["a:1", "a:1"], FIRST), "is given twice"),
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


# Two runs of scripts/train.py's: one undisturbed, and one that goes on from what the
# first would have left if it had been killed at the beginning of its second epoch. Each
# process also puts aside what it has itself of each variable.
WORKER = """
import functools, sys, shutil, pathlib, numpy as np
from tf_synflow import PruningPolicy
from tf_synflow.experiments import distribution, training
from tf_synflow.experiments import run as experiment
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.recipe import Recipe
from tf_synflow.experiments.settings import Place, Pruning
from tf_synflow.keras2.imports import keras
folder, number = pathlib.Path(sys.argv[1]), sys.argv[2]
experiment.distribution.strategy = functools.cache(distribution.strategy)
write = experiment._write
def both(workdir, trained, title, results):
    own = trained.model.distribute_strategy.experimental_local_results
    weights = {w.name: own(w)[0].numpy() for w in trained.model.weights}
    np.savez(folder / f"weights_{name}_{number}.npz", **weights)
    write(workdir, trained, title, results)
experiment._write = both
generator = np.random.default_rng(0)
small = lambda n: (generator.random((n, 8, 8, 3), "float32"), np.arange(n) % 10)
data = Dataset(small(64), small(20), 10, padding=1, mirrored=True)
experiment.data_lib.load = lambda *_: data
experiment.models.build = lambda *_: keras.Sequential([
    keras.Input((8, 8, 3)), keras.layers.Conv2D(8, 3, name="conv"),
    keras.layers.BatchNormalization(name="bn"), keras.layers.ReLU(),
    keras.layers.Flatten(), keras.layers.Dense(10, name="fc"),
])
class Copying(training.PruningCallback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch and name == "whole" and number == "0":
            shutil.copytree(folder / "whole", folder / "cut")
training.PruningCallback = Copying
for name in ("whole", "cut"):
    results = experiment.run(
        folder / name, model="small", dataset="noise",
        pruning=Pruning(10, PruningPolicy(iterations=3)),
        recipe=Recipe(2, 16, 0.1, 0),
        place=Place(distribute="multi_worker"), flags={"a": 1},
    )
    print("RESULTS", results["train"]["final_accuracy"])
"""


def test_two_processes_end_with_the_same_weights_killed_or_not(tmp_path):
    """What each process has itself is the same, bit for bit, as if never killed."""
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
        processes.append(
            subprocess.Popen(
                [sys.executable, "-c", WORKER, str(tmp_path), str(index)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    answers = [process.communicate(timeout=600) for process in processes]
    assert [p.returncode for p in processes] == [0, 0], answers[0][1] + answers[1][1]
    said = [re.findall("^(?:RESULTS|Epoch).*", out, re.M) for out, _ in answers]
    assert said[0] == said[1]
    results = said[0][2]
    assert said[0] == ["Epoch 1/2", "Epoch 2/2", results, "Epoch 2/2", results]
    whole, cut = (
        [dict(np.load(tmp_path / f"weights_{name}_{i}.npz")) for i in range(2)]
        for name in ("whole", "cut")
    )
    for own, again in zip(whole, cut, strict=True):
        assert len(own) > 8 and list(own) == list(again)
        assert {n: w.tobytes() for n, w in own.items()} == {
            n: w.tobytes() for n, w in again.items()
        }
    apart = [n for n in whole[0] if whole[0][n].tobytes() != whole[1][n].tobytes()]
    # Each process has statistics of the images that it has seen.
    assert [n.split("/")[-1] for n in apart] == ["moving_mean:0", "moving_variance:0"]
    names = [
        "history.csv", "masks.npz", "model.keras", "results.json", "run.png",
        "tensorboard",
    ]  # fmt: skip
    files = {}
    for run in (tmp_path / "whole", tmp_path / "cut"):
        assert sorted(path.name for path in run.iterdir()) == names
        masks = np.load(run / "masks.npz")
        assert sum(int(masks[name].sum()) for name in masks.files) == 310  # of 3,096
        model = keras.models.load_model(run / "model.keras")
        rows = [{**row, "seconds": 0} for row in read_history(run)]
        files[run.name] = [w.numpy().tobytes() for w in model.weights], rows
    assert files["whole"] == files["cut"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "cut", "weights_cut_0.npz", "weights_cut_1.npz",
        "weights_whole_0.npz", "weights_whole_1.npz", "whole",
    ]  # fmt: skip
