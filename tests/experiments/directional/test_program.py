"""`tf-synflow directional` on a tiny budget: its files, and what they agree on."""

import csv

import numpy as np
import pytest
from programs import answers, refused

from tf_synflow import models
from tf_synflow.experiments import data
from tf_synflow.experiments.directional.flat import FlatNetwork

SMALL = ["directional", "--train_images=64", "--epochs=3", "--looks=1,3"]
SMALL += ["--curve_epochs=1", "--points=3", "--eigenvectors=2"]

BAD_FLAGS = {
    "--mus=2": "mu must be within (0, 1), got 2",
    "--mus=0.6,a": "--mus=0.6,a: expected numbers",
    "--mus=0.6,0.6": "all different",
    "--looks=4": "epochs from 1 to 3",
    "--looks=1.5": "--looks=1.5: expected whole numbers",
    "--model=resnet20": "has BatchNormalization ('stem_bn')",
    "--output=none/figure": "the folder 'none' does not exist",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("directional")
    output = folder / "figure"
    said, *bad = answers(
        [
            [*SMALL, f"--output={output}", "--c=0.1", "--mus=0.6,0.4"],
            *([*SMALL, flag, f"--output={folder}/bad"][: 2 + len(SMALL)]
              if "output" not in flag else [*SMALL, flag] for flag in BAD_FLAGS),
        ]
    )  # fmt: skip
    tables = {}
    for name in ("", "_paths", "_shares", "_layers"):
        with open(f"{output}{name}.csv") as file:
            tables[name] = list(csv.DictReader(file))
    return folder, said, bad, tables


def test_it_writes_pictures_and_tables_and_nothing_else(run):
    folder, (printed, _), _, _ = run
    assert sorted(path.name for path in folder.iterdir()) == [
        "figure.csv",
        "figure.png",
        "figure.svg",
        "figure_layers.csv",
        "figure_paths.csv",
        "figure_shares.csv",
    ]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert "sgd: " in printed and "grda, mu 0.4: " in printed


def test_the_networks_are_described_by_what_the_other_tables_hold(run):
    _, _, _, tables = run
    networks = {(row["network"], row["mu"]): row for row in tables[""]}
    assert list(networks) == [
        ("sgd", ""),
        *[(name, mu) for mu in ("0.6", "0.4") for name in ("grda", "magnitude")],
    ]
    for (name, mu), row in networks.items():
        assert row["weights"] == "13706"
        if name == "sgd":
            continue
        own = [r for r in tables["_layers"] if (r["network"], r["mu"]) == (name, mu)]
        assert sum(int(r["size"]) for r in own) == 13_706
        assert sum(int(r["zeros"]) for r in own) == int(row["zeros"])
        assert row["zeros"] == networks["grda", mu]["zeros"]
        shares = [r for r in tables["_shares"] if (r["network"], r["mu"]) == (name, mu)]
        assert [r["epoch"] for r in shares] == ["1", "3"]
        assert shares[-1]["share"] == row["share"]
        assert float(row["random_share"]) == pytest.approx(np.sqrt(2 / 13_706))
        for shape in ("straight", "bezier"):
            path = [
                float(r["train_loss"])
                for r in tables["_paths"]
                if (r["network"], r["mu"], r["path"]) == (name, mu, shape)
            ]
            if (name, shape) == ("magnitude", "bezier"):
                assert path == [] and row["bezier_max"] == ""
                continue
            assert len(path) == 3
            assert path[0] == pytest.approx(float(row["train_loss"]))
            assert path[-1] == pytest.approx(float(networks["sgd", ""]["train_loss"]))
            assert max(path) == float(row[f"{shape}_max"])
    # In the first ten steps at this learning rate, a larger mu gives fewer zeros.
    few, many = (int(networks["grda", mu]["zeros"]) for mu in ("0.6", "0.4"))
    assert many > few > 100


def test_bad_flags_are_refused_in_one_line(run):
    _, _, bad, _ = run
    for (flag, words), said in zip(BAD_FLAGS.items(), refused(bad), strict=True):
        assert words in said, flag


def test_the_digits_as_they_are_are_those_that_are_resized():
    small, large = data.load("digits_8x8"), data.load("digits")
    assert small.input_shape == (8, 8, 1)
    assert (len(small.train[1]), len(small.test[1])) == (1437, 360)
    for part in ("train", "test"):
        np.testing.assert_array_equal(getattr(small, part)[1], getattr(large, part)[1])
    # Their means are not far from each other, image by image.
    means = [x.mean((1, 2, 3)) for x in (small.train[0], large.train[0])]
    np.testing.assert_allclose(*means, atol=0.01)
    assert small.train[0].max() == 1 and len(np.unique(small.train[0])) == 17


def test_the_network_of_the_program_takes_the_digits():
    digits = data.load("digits_8x8")
    model = models.build("small_cnn", digits.input_shape, digits.classes)
    assert FlatNetwork(model, digits).size == 13_706
