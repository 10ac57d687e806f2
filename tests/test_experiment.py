import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tf_synflow
from tf_synflow import data
from tf_synflow._compat import keras

ROOT = Path(__file__).parents[1]


def train(workdir, *more):
    command = [
        sys.executable,
        "scripts/train.py",
        "--flagfile=configs/quickstart.flags",
    ]
    command += [f"--workdir={workdir}", "--epochs=1", "--iterations=3", *more]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("runs") / "deep" / "run"
    done = train(workdir)
    assert done.returncode == 0, done.stderr
    return workdir, done


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
    assert results["flags"]["epochs"] == 1
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
        "final_top5_accuracy",
        "final_sparsity",
        "seconds",
    }
    with open(workdir / "history.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == trained["epochs"] == 1
    assert float(rows[0]["val_accuracy"]) == trained["final_accuracy"]
    assert float(rows[0]["density"]) == pytest.approx(27_090 / 270_896)
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
    x, y = data.load("digits").test
    accuracy = np.mean(model.predict(x, verbose=0).argmax(-1) == y)
    assert accuracy == pytest.approx(trained["final_accuracy"])
    # 3x3 weights at 32x32 positions, 3 channels to 16; and at 16x16, 16 to 32.
    assert by_name["stem_conv/kernel"]["macs"] == 3 * 3 * 3 * 16 * 32 * 32
    assert by_name["stage2_block1_conv1/kernel"]["macs"] == 9 * 16 * 32 * 16 * 16
    assert by_name["classifier/kernel"]["macs"] == 640


def test_a_folder_that_holds_a_run_is_refused_and_left_as_it_is(run):
    workdir, _ = run
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}
    done = train(workdir)
    assert done.returncode != 0
    assert "is no empty folder: it may hold another run" in done.stderr
    assert "Traceback" not in done.stderr
    assert before == {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file()}


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--model=vgg17", "resnet20"),
        ("--dataset=cifar", "digits"),
        ("--criterion=snipe", "synflow"),
        ("--ratio=-3", "finite and not negative"),
        ("--ratio=1000000", "the highest ratio"),
        ("--epochs=0", "--epochs"),
        ("--optimizer=grda --mu=2", "mu must be within"),
        ("--criterion=snip --prune_images=0", "cannot take 0 of the 1437"),
    ],
)
def test_bad_flags_are_refused_before_anything_is_written(tmp_path, flag, message):
    done = train(tmp_path / "run", *flag.split())
    assert done.returncode != 0
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


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
