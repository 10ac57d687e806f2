import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from programs import answers, refused

import tf_synflow
from tf_synflow.experiments import data, training
from tf_synflow.experiments import run as experiment
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.recipe import Recipe
from tf_synflow.experiments.run_folder import RunFolder, run_folder
from tf_synflow.experiments.settings import Place, Pruning
from tf_synflow.keras2.imports import keras
from tf_synflow.models.parts import Parts

ROOT = Path(__file__).parents[2]


FLAGS = ["--flagfile=configs/quickstart.flags", "--epochs=2", "--iterations=3"]
# Three steps an epoch.
FLAGS += ["--batch_size=64", "--train_images=192"]


def command(workdir):
    return [sys.executable, "-m", "tf_synflow", "train", *FLAGS, f"--workdir={workdir}"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "deep" / "run"
    done = subprocess.run(command(workdir), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return workdir, done


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A run that is killed after the first of two epochs, and when its masks were made.

    With a signal that nobody can catch.
    """
    killed = tmp_path_factory.mktemp("runs") / "killed"
    process = subprocess.Popen(
        command(killed),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and not (killed / "checkpoints" / "epoch_1").exists():
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    return killed, (killed / "masks.npz").stat().st_mtime_ns


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


BAD_FLAGS = {
    "--model=vgg17": "resnet20",
    "--dataset=cifar": "digits",
    "--criterion=snipe": "synflow",
    "--ratio=-3": "finite and not negative",
    "--ratio=1000000": "the highest ratio",
    "--epochs=0": "--epochs",
    "--optimizer=grda --mu=2": "mu must be within",
    "--optimizer=grda --nonesterov": "GRDA has no momentum, got --nesterov=False",
    "--momentum=1": "momentum must be within [0, 1), got 1.0",
    "--start_from=/none": "there is no '/none' to start from",
    "--criterion=snip --prune_images=0": "images to score by must be at least 1, got 0",
    "--train_images=1438": "cannot train on 1438 of the 1437",
    "--multiple_of=16": "--multiple_of=16 has no effect without --shrink",
    "--decay=step": "which needs at least one: got decay 'step'",
    "--decay=step --drops=a": "--drops=a: expected whole numbers",
    "--distribute=multi_worker": "environment variable TF_CONFIG",
    "--dataset=imagenet2012 --data_dir=/none": "tfds build imagenet2012",
    "--dataset=mnist --data_dir=/none --nodownload": "there is no mnist in",
    "--dataset=tiny_imagenet --data_dir=README.md": "it is not a zip file",
}


class Later:
    """What a process that comes after says of all these folders, and what it changes.

    The run that was killed goes on first, as the first thing that this process does.
    """

    def __init__(self, folder, finished, killed):
        taken, other = folder / "taken", folder / "other"
        other.mkdir()
        (other / "thesis.tex").write_text("years of work")
        self.refused = folder / "refused"
        start = ["train", *FLAGS]
        bad = [
            ["train", FLAGS[0], f"--workdir={self.refused}", *flag.split()]
            for flag in BAD_FLAGS
        ]
        left_alone = contents(finished), contents(other)
        with run_folder(taken, {"model": "resnet20"}):
            self.resumed, self.again, *said = answers(
                [
                    [*start, f"--workdir={killed}"],
                    [*start, f"--workdir={finished}"],
                    [*start, f"--workdir={finished}", "--seed=5"],
                    [*start, f"--workdir={other}"],
                    [*start, f"--workdir={taken}"],
                    *bad,
                ]
            )
        self.changed_nothing = left_alone == (contents(finished), contents(other))
        self.of_folders, self.of_flags = said[:3], said[3:]


@pytest.fixture(scope="module")
def later(run, killed, tmp_path_factory):
    return Later(tmp_path_factory.mktemp("later"), run[0], killed[0])


def test_a_run_leaves_its_files_and_nothing_else(run):
    workdir, done = run
    assert sorted(path.name for path in workdir.iterdir()) == [
        "history.csv",
        "masks.npz",
        "model.keras",
        "results.json",
        "run.png",
        "tensorboard",
    ]
    assert list((workdir / "tensorboard").rglob("events.out.tfevents.*"))
    assert (workdir / "run.png").read_bytes().startswith(b"\x89PNG")
    assert "kept 27,090 of 270,896 weights" in done.stdout


def test_results_hold_what_was_promised_and_agree_with_the_files(run):
    workdir, _ = run
    results = json.loads((workdir / "results.json").read_text())
    assert results["flags"]["model"] == "resnet20"
    assert results["flags"]["epochs"] == 2
    assert {"python", "tensorflow", "tf_keras"} <= set(results["versions"])
    prune, trained = results["prune"], results["train"]
    masks = tf_synflow.load_masks(workdir / "masks.npz")
    assert (prune["criterion"], prune["ratio"]) == ("synflow", 10)
    assert prune["prunable"] == 270_896
    assert prune["kept"] == sum(mask.sum() for mask in masks.values()) == 27_090
    assert prune["seconds"] > 0
    # With so few iterations the 1x1 shortcuts empty; the main path stays.
    empty = [name for name, mask in masks.items() if not mask.any()]
    assert prune["collapsed_layers"] == empty
    assert set(trained) == {
        "epochs",
        "final_accuracy",
        "best_accuracy",
        "best_epoch",
        "final_top5_accuracy",
        "final_sparsity",
        "seconds",
    }
    with open(workdir / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == trained["epochs"] == 2
    assert float(rows[-1]["val_accuracy"]) == trained["final_accuracy"]
    assert float(rows[-1]["density"]) == pytest.approx(27_090 / 270_896)
    model = keras.models.load_model(workdir / "model.keras")
    by_name = {row["name"]: row for row in results["layers"]}
    assert list(by_name) == list(masks)
    for name, mask in masks.items():
        kernel = model.get_layer(name.split("/")[0]).kernel.numpy()
        assert not kernel[~mask].any()
        row = by_name[name]
        assert row["shape"] == list(mask.shape)
        assert (row["size"], row["kept"]) == (mask.size, mask.sum())
        assert row["density"] == mask.mean()
    digits = data.load("digits")
    x, y = digits.normalised(digits.test[0]), digits.test[1]
    accuracy = np.mean(model.predict(x, verbose=0).argmax(-1) == y)
    assert accuracy == pytest.approx(trained["final_accuracy"])
    # 3x3 weights at 32x32 positions, 3 channels to 16; and at 16x16, 16 to 32.
    assert by_name["stem_conv/kernel"]["macs"] == 3 * 3 * 3 * 16 * 32 * 32
    assert by_name["stage2_block1_conv1/kernel"]["macs"] == 9 * 16 * 32 * 16 * 16
    assert by_name["classifier/kernel"]["macs"] == 640


def test_a_finished_run_is_recognised_and_left_alone(run, later):
    _, done = run
    stdout, stderr = later.again
    assert stderr.endswith("exit 0\n"), stderr
    assert stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert "3/3" in done.stdout and "3/3" not in stdout
    assert later.changed_nothing


def test_a_folder_that_is_not_this_runs_is_refused_and_left_as_it_is(later):
    said = refused(later.of_folders)
    assert "was begun with --seed=0, not 5" in said[0]
    assert "holds files, but no run of this library" in said[1]
    assert "another process is at work in" in said[2]
    assert later.changed_nothing


def test_bad_flags_are_refused_before_anything_is_written(later):
    said = refused(later.of_flags)
    for (flag, message), answer in zip(BAD_FLAGS.items(), said, strict=True):
        assert message in answer, flag
    assert not later.refused.exists()


def test_a_run_that_is_killed_goes_on(run, killed, later):
    undisturbed, (killed, made) = run[0], killed
    stdout, stderr = later.resumed
    assert stderr.endswith("exit 0\n"), stderr
    assert "Epoch 1/2" not in stdout and "Epoch 2/2" in stdout
    # The masks that were there are those that were used.
    assert (killed / "masks.npz").stat().st_mtime_ns == made
    files = [sorted(p.name for p in f.iterdir()) for f in (killed, undisturbed)]
    assert files[0] == files[1]
    weights = [
        [w.numpy().tobytes() for w in keras.models.load_model(path).weights]
        for path in (killed / "model.keras", undisturbed / "model.keras")
    ]
    assert weights[0] == weights[1]
    masks = [
        tf_synflow.load_masks(path / "masks.npz") for path in (killed, undisturbed)
    ]
    assert all((masks[0][name] == masks[1][name]).all() for name in masks[0])


def small_net():
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(8, 3, activation="relu", name="conv1"),
            layers.BatchNormalization(),
            layers.Conv2D(6, 3, 2, activation="relu", name="conv2"),
            layers.Flatten(),
            layers.Dense(12, activation="relu", name="hidden"),
            layers.Dropout(0.3, rng_type="stateful"),
            layers.Dense(10, dtype=Parts("tf_keras").logits_dtype(), name="fc"),
        ]
    )


def test_the_small_network_is_trained_and_the_whole_one_written(tmp_path, monkeypatch):
    """With --shrink: both compute the same, and the masks are those of the whole."""
    generator = np.random.default_rng(0)
    x = generator.random((48, 8, 8, 3), "float32")
    small = Dataset((x, np.arange(48) % 10), (x[:20], np.arange(20) % 10), 10)
    monkeypatch.setattr(experiment.data_lib, "load", lambda *_: small)
    monkeypatch.setattr(experiment.models, "build", lambda *_: small_net())
    results = experiment.run(
        tmp_path / "run",
        model="small",
        dataset="noise",
        pruning=Pruning(
            20,
            tf_synflow.PruningPolicy(iterations=5, progress=False),
            shrink=True,
            multiple_of=3,
        ),
        recipe=Recipe(1, 16, 0.1, 0),
        flags={},
    )
    models = [
        keras.models.load_model(tmp_path / "run" / f"{name}.keras")
        for name in ("model", "small")
    ]
    a, b = (model.predict(x, verbose=0) for model in models)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(a).max())
    accuracy = np.mean(b[:20].argmax(-1) == np.arange(20) % 10)
    assert accuracy == pytest.approx(results["train"]["final_accuracy"])
    sizes = [model.count_params() for model in models]
    found = [results["shrink"][which]["parameters"] for which in ("before", "after")]
    assert found == sizes and sizes[1] < 0.6 * sizes[0]
    reports = [tf_synflow.report(model).totals["macs"] for model in models]
    assert reports == [
        results["shrink"][which]["macs"] for which in ("before", "after")
    ]
    masks = tf_synflow.load_masks(tmp_path / "run" / "masks.npz")
    for name, mask in masks.items():
        kernel = models[0].get_layer(name.split("/")[0]).kernel.numpy()
        assert kernel.shape == mask.shape and not kernel[~mask].any()
    pruned = tf_synflow.apply_masks(small_net(), masks)
    few, more = (tf_synflow.strip(tf_synflow.shrink(pruned, of)) for of in (1, 3))
    assert few.count_params() < more.count_params() == sizes[1]


def test_filters_in_rounds_survive_being_stopped(tmp_path, monkeypatch):
    """Stopped in the second round and again in the training after: the same bytes."""
    generator = np.random.default_rng(0)
    x = generator.random((32, 8, 8, 3), "float32")
    small = Dataset((x, np.arange(32) % 10), (x[:20], np.arange(20) % 10), 10)
    monkeypatch.setattr(experiment.data_lib, "load", lambda *_: small)
    monkeypatch.setattr(experiment.models, "build", lambda *_: small_net())
    policy = tf_synflow.PruningPolicy("loss_preservation", granularity="filter")

    def run(folder):
        return experiment.run(
            tmp_path / folder,
            model="small",
            dataset="noise",
            pruning=Pruning(0.5, policy, images=16, rounds=2),
            recipe=Recipe(2, 16, 0.1, 0, decay="step", drops=(1,)),
            flags={},
        )

    batches, seen = training.Dataset.training, []

    def watched(data, size, seed, epoch):
        seen.append(epoch)
        return batches(data, size, seed, epoch)

    with monkeypatch.context() as patch:
        patch.setattr(training.Dataset, "training", watched)
        results = run("whole")
    assert seen == [0, 1, 2]  # no round has the images as one before had them
    train, calls = training.train, []

    def stopped(*args):
        calls.append(args[3].epochs)
        if len(calls) in (2, 5):
            raise KeyboardInterrupt
        return train(*args)

    monkeypatch.setattr(training, "train", stopped)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            run("stopped")
    assert sorted(p.name for p in (tmp_path / "stopped").glob("*.keras")) == [
        "pruned.keras"
    ]
    assert run("stopped")["layers"] == results["layers"]
    # Rounds are of one epoch; at the end only the training was left to do.
    assert calls == [1, 1, 1, 1, 2, 2]
    files = [
        sorted(p.name for p in (tmp_path / f).iterdir()) for f in ("whole", "stopped")
    ]
    assert files[0] == files[1] and "pruned.keras" not in files[0]
    weights = [
        [w.numpy().tobytes() for w in keras.models.load_model(path).weights]
        for path in tmp_path.glob("*/model.keras")
    ]
    assert len(weights) == 2 and weights[0] == weights[1]
    # Half of the filters, 8, 6 and 12 at first; the model written is the small one.
    model = keras.models.load_model(tmp_path / "whole" / "model.keras")
    left = sum(model.get_layer(name).filters for name in ("conv1", "conv2"))
    left += model.get_layer("hidden").units
    assert left == 13 and results["prune"]["filters"] == {"prunable": 26, "kept": 13}
    assert model.count_params() == results["shrink"]["after"]["parameters"]


def test_versions_that_change_between_kill_and_resume_are_recorded(
    tmp_path, monkeypatch
):
    """And a run that is killed right after its results were written is tidied."""
    generator = np.random.default_rng(0)
    x = generator.random((16, 8, 8, 3), "float32")
    small = Dataset((x, np.arange(16) % 10), (x[:8], np.arange(8) % 10), 10)
    monkeypatch.setattr(experiment.data_lib, "load", lambda *_: small)
    monkeypatch.setattr(experiment.models, "build", lambda *_: small_net())

    def run():
        policy = tf_synflow.PruningPolicy("magnitude")
        return experiment.run(
            tmp_path,
            model="small",
            dataset="noise",
            pruning=Pruning(2, policy),
            recipe=Recipe(1, 16, 0.1, 0),
            flags={},
        )

    def killed(*_):
        raise KeyboardInterrupt

    now = experiment.versions()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(experiment, "versions", lambda: {**now, "tensorflow": "2.0.0"})
        patch.setattr(training, "train", killed)
        run()
    expected = f"tensorflow 2.0.0, now {now['tensorflow']}$"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunFolder, "tidy", killed)
        with pytest.warns(UserWarning, match=expected):
            run()
    results = json.loads((tmp_path / "results.json").read_text())
    del results["digest"]
    assert results["versions"] == now
    assert results["earlier_versions"] == [{**now, "tensorflow": "2.0.0"}]
    assert {"checkpoints", "flags.json", "versions.json"} <= {
        path.name for path in tmp_path.iterdir()
    }
    assert run() == results
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "history.csv", "masks.npz", "model.keras", "results.json", "run.png",
        "tensorboard",
    ]  # fmt: skip


def test_what_does_not_go_with_rounds_is_refused():
    filters = tf_synflow.PruningPolicy("magnitude", granularity="filter")
    with pytest.raises(ValueError, match="rounds=1 cannot be combined with shrink"):
        Pruning(2, filters, rounds=1, shrink=True).check()
    with pytest.raises(
        ValueError, match="rounds=1 needs granularity=filter, got granularity=weight"
    ):
        Pruning(2, tf_synflow.PruningPolicy(), rounds=1).check()
    with pytest.raises(ValueError, match="multiple_of=16 has no effect without shrink"):
        Pruning(2, tf_synflow.PruningPolicy(), multiple_of=16).check()
    for options in ({"levels": 2}, {"rounds": 2}):
        granularity = "filter" if "rounds" in options else "weight"
        policy = tf_synflow.PruningPolicy(
            "magnitude", iterations=3, granularity=granularity
        )
        with pytest.raises(ValueError, match="iterations=3 cannot be combined"):
            Pruning(2, policy, **options).check()
    linear = tf_synflow.PruningPolicy(
        "magnitude", schedule="linear", granularity="filter"
    )
    with pytest.raises(
        ValueError, match="schedule=linear cannot be combined with rounds"
    ):
        Pruning(2, linear, rounds=1).check()


@pytest.mark.parametrize(
    ("half", "shrink"), [("float16", False), ("float16", True), ("bfloat16", False)]
)
def test_half_precision_reaches_every_layer_and_no_mask(
    tmp_path, monkeypatch, half, shrink
):
    """Wrappers compute in it too, and for float16 the loss is scaled."""
    generator = np.random.default_rng(0)
    x = generator.random((32, 8, 8, 3), "float32")
    small = Dataset((x, np.arange(32) % 10), (x[:20], np.arange(20) % 10), 10)
    monkeypatch.setattr(experiment.data_lib, "load", lambda *_: small)
    monkeypatch.setattr(experiment.models, "build", lambda *_: small_net())
    train, trained = training.train, []

    def kept(network, *args):
        trained.append(network.model)
        return train(network, *args)

    monkeypatch.setattr(training, "train", kept)
    for precision in ("float32", f"mixed_{half}"):
        experiment.run(
            tmp_path / precision,
            model="small",
            dataset="noise",
            pruning=Pruning(
                3,
                tf_synflow.PruningPolicy("snip", progress=False),
                images=32,
                shrink=shrink,
            ),
            recipe=Recipe(1, 16, 0.1, 0),
            place=Place(precision=precision),
            flags={},
        )
    model = trained[1]
    scaled = isinstance(model.optimizer, keras.mixed_precision.LossScaleOptimizer)
    assert scaled == (half == "float16")
    dtypes = [layer.compute_dtype for layer in model.layers]
    assert dtypes == [half] * (len(dtypes) - 1) + ["float32"]
    assert model(x[:1]).dtype == "float32"
    assert {v.dtype.name for v in model.trainable_variables} == {"float32"}
    assert keras.mixed_precision.global_policy().name == "float32"
    masks = [
        tf_synflow.load_masks(tmp_path / precision / "masks.npz")
        for precision in ("float32", f"mixed_{half}")
    ]
    assert all((masks[0][name] == masks[1][name]).all() for name in masks[0])


def test_the_digits_are_split_once_and_for_all():
    first, second = data.load("digits"), data.load("digits")
    assert first.input_shape == (32, 32, 3)
    assert (len(first.train[0]), len(first.test[0])) == (1437, 360)
    np.testing.assert_array_equal(first.test[0], second.test[0])
    assert first.train[0].min() == 0
    assert first.train[0].max() == 1
    assert np.bincount(first.test[1]).min() >= 34
    with pytest.raises(ValueError, match="unknown dataset 'cifar'; there are 'digits'"):
        data.load("cifar")
