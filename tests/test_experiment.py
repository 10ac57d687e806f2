import csv
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import tf_synflow
from tf_synflow import data
from tf_synflow._compat import keras
from tf_synflow.run_folder import run_folder

ROOT = Path(__file__).parents[1]


def command(workdir, *more):
    flagfile = "--flagfile=configs/quickstart.flags"
    start = [sys.executable, "scripts/train.py", flagfile, f"--workdir={workdir}"]
    return [*start, "--epochs=1", "--iterations=3", *more]


def train(workdir, *more):
    return subprocess.run(
        command(workdir, *more), cwd=ROOT, capture_output=True, text=True
    )


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
    digits = data.load("digits")
    x, y = digits.normalised(digits.test[0]), digits.test[1]
    accuracy = np.mean(model.predict(x, verbose=0).argmax(-1) == y)
    assert accuracy == pytest.approx(trained["final_accuracy"])
    # 3x3 weights at 32x32 positions, 3 channels to 16; and at 16x16, 16 to 32.
    assert by_name["stem_conv/kernel"]["macs"] == 3 * 3 * 3 * 16 * 32 * 32
    assert by_name["stage2_block1_conv1/kernel"]["macs"] == 9 * 16 * 32 * 16 * 16
    assert by_name["classifier/kernel"]["macs"] == 640


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_finished_run_is_recognised_and_left_alone(run):
    workdir, done = run
    before = contents(workdir)
    again = train(workdir)
    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    assert "45/45" not in again.stdout
    assert contents(workdir) == before


def test_a_run_with_other_flags_is_refused_and_left_as_it_is(run):
    workdir, _ = run
    before = contents(workdir)
    done = train(workdir, "--seed=5")
    assert done.returncode != 0
    assert "was begun with seed=0, not 5" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(workdir) == before


def test_a_folder_of_other_things_is_refused_and_left_as_it_is(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    done = train(tmp_path)
    assert done.returncode != 0 and "Traceback" not in done.stderr
    assert "holds files, but no run of this library" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_run_that_is_killed_goes_on(tmp_path):
    """Killed with a signal nobody can catch: while it prunes, and after an epoch."""
    flags = ["--epochs=2", "--model=resnet20"]
    moments = [
        lambda folder: (folder / "flags.json").exists(),
        lambda folder: (folder / "checkpoints" / "epoch_1").exists(),
    ]
    stamps = []
    for moment in moments:
        process = subprocess.Popen(
            command(tmp_path / "killed", *flags),
            cwd=ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while process.poll() is None and not moment(tmp_path / "killed"):
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        masks = tmp_path / "killed" / "masks.npz"
        stamps.append(masks.stat().st_mtime_ns if masks.exists() else None)
    for name in ("killed", "undisturbed"):
        done = train(tmp_path / name, *flags)
        assert done.returncode == 0, done.stderr
    assert "Epoch 1/2" not in train(tmp_path / "killed", *flags).stdout
    files = [
        sorted(p.name for p in (tmp_path / n).iterdir())
        for n in ("killed", "undisturbed")
    ]
    assert files[0] == files[1]
    # The masks that were there before the second kill are those that were used.
    assert (tmp_path / "killed" / "masks.npz").stat().st_mtime_ns == stamps[1]
    weights = [
        [w.numpy().tobytes() for w in keras.models.load_model(path).weights]
        for path in sorted(tmp_path.glob("*/model.keras"))
    ]
    assert len(weights) == 2 and weights[0] == weights[1]
    masks = [tf_synflow.load_masks(p) for p in sorted(tmp_path.glob("*/masks.npz"))]
    assert all((masks[0][name] == masks[1][name]).all() for name in masks[0])


def test_two_processes_do_not_share_a_folder(tmp_path):
    with run_folder(tmp_path / "run", {"model": "resnet20"}):
        done = train(tmp_path / "run")
        assert done.returncode != 0 and "Traceback" not in done.stderr
        assert "another process is at work in" in done.stderr


BAD_FLAGS = {
    "--model=vgg17": "resnet20",
    "--dataset=cifar": "digits",
    "--criterion=snipe": "synflow",
    "--ratio=-3": "finite and not negative",
    "--ratio=1000000": "the highest ratio",
    "--epochs=0": "--epochs",
    "--optimizer=grda --mu=2": "mu must be within",
    "--criterion=snip --prune_images=0": "cannot take 0 of the 1437",
    "--decay=step": "and only then; got decay 'step'",
    "--decay=step --drops=a": "--drops must be whole numbers",
    "--distribute=multi_worker": "environment variable TF_CONFIG",
    "--dataset=imagenet2012 --data_dir=/none": "tfds build imagenet2012",
    "--dataset=mnist --data_dir=/none --nodownload": "there is no mnist in",
    "--dataset=tiny_imagenet --data_dir=README.md": "it is no zip file",
}
# Runs train.py again and again in one process, as if from the command line.
AGAIN_AND_AGAIN = """
import runpy, sys
from absl import app, flags
sys.path.insert(0, "scripts")
import train
results = []
for more in sys.argv[2:]:
    argv = ["scripts/train.py", "--flagfile=configs/quickstart.flags", *more.split()]
    argv.append(f"--workdir={sys.argv[1]}")
    flags.FLAGS.unparse_flags()
    for name in flags.FLAGS:
        flags.FLAGS[name].unparse()
    print("#", more, file=sys.stderr)
    try:
        train.main(flags.FLAGS(argv))
    except (SystemExit, flags.Error) as error:
        print(error, file=sys.stderr)
"""


def test_bad_flags_are_refused_before_anything_is_written(tmp_path):
    program = [sys.executable, "-c", AGAIN_AND_AGAIN, str(tmp_path / "run")]
    done = subprocess.run(
        [*program, *BAD_FLAGS], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    answers = dict(part.split("\n", 1) for part in done.stderr.split("# ")[1:])
    for flag, message in BAD_FLAGS.items():
        assert message in answers[flag], flag
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
