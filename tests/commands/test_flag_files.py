"""Every flag file names what there is; one is run on tfds's mock data."""

import subprocess
import sys
from pathlib import Path

import pytest

from tf_synflow import models
from tf_synflow.criteria import CRITERIA
from tf_synflow.experiments import data
from tf_synflow.experiments.recipe import Recipe, optimizer
from tf_synflow.masks.counts import pruned_fraction

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").rglob("*.flags"))


def read(path):
    lines = [x.strip() for x in path.read_text().splitlines()]
    return dict(x[2:].partition("=")[::2] for x in lines if x.startswith("--"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_flag_file_names_what_there_is(path):
    found = read(path)
    assert path.read_text().startswith("# "), "what it is should be said"
    for name, known in [
        ("model", models.MODELS),
        ("dataset", data.DATASETS),
        ("criterion", CRITERIA),
    ]:
        many = {"criterion": "criteria"}.get(name, name + "s")
        values = found.get(many, found.get(name, "")).split(",")
        assert set(values) <= {*known, ""}
    if "sweepdir" in found:
        assert (ROOT / found["recipe"]).is_file()
        for ratio in found["ratios"].split(","):
            assert 0 <= pruned_fraction(float(ratio)) < 1
    if found.get("epochs", "").isdigit():
        drops = tuple(int(d) for d in found.get("drops", "").split(",") if d)
        recipe = Recipe(
            int(found["epochs"]),
            int(found["batch_size"]),
            float(found["learning_rate"]),
            seed=0,
            decay=found.get("decay", "cosine"),
            drops=drops,
            drop_factor=float(found.get("drop_factor", 0.1)),
            weight_decay=float(found.get("weight_decay", 0)),
            grda=(0.01, 0.51) if found.get("optimizer") == "grda" else None,
        )
        assert all(drop < recipe.epochs for drop in drops)
        optimizer(recipe, steps=3)


def test_the_twelve_combinations_of_figure_6_have_the_papers_settings():
    """The table of the paper's appendix, as the sweeps and their recipes spell it."""
    cifar, tiny = ("cifar10", "cifar100"), ("tiny_imagenet",)
    vgg, resnet = ("vgg11_bn", "vgg16_bn"), ("resnet18", "wide_resnet18")
    table = {
        (d, m): row
        for sets, nets, row in [
            (cifar, vgg, ("160", "0.1", "60,120", "0.1", "1e-4")),
            (cifar, resnet, ("160", "0.01", "60,120", "0.2", "5e-4")),
            (tiny, vgg + resnet, ("100", "0.01", "30,60,80", "0.1", "1e-4")),
        ]
        for d in sets
        for m in nets
    }
    assert len(table) == 12
    for (dataset, model), row in table.items():
        sweep = read(ROOT / "configs" / "figure6" / f"{dataset}_{model}.flags")
        assert (sweep["datasets"], sweep["models"]) == (dataset, model)
        assert sweep["seeds"] == "0,1,2"
        recipe = read(ROOT / sweep["recipe"])
        names = ("epochs", "learning_rate", "drops", "drop_factor", "weight_decay")
        assert tuple(recipe[name] for name in names) == row
        assert recipe["decay"] == "step" and recipe["batch_size"] == "128"
        ratios = [float(ratio) for ratio in sweep["ratios"].split(",")]
        assert ratios == pytest.approx([10 ** (k / 4) for k in range(13)], rel=1e-4)


def test_rounds_of_the_framework_and_the_epochs_after_them_are_those_of_its_program():
    """160 epochs in all, at 0.1, 0.01 and 0.001 from epochs 80 and 120 on."""
    recipes = ROOT / "configs" / "recipes"
    for rounds in (0, 1, 5, 25):
        names = ["base"] if not rounds else [rounds, f"resnet_{rounds}"]
        for name in names:
            found = read(recipes / f"framework_{name}.flags")
            assert int(found["epochs"]) == 160 - rounds
            drops = [int(drop) for drop in found["drops"].split(",")]
            assert drops == [80 - rounds, 120 - rounds]
            assert found.get("rounds", "0") == str(rounds)
            text = (recipes / f"framework_{name}.flags").read_text()
            words = ("--nonesterov", "--save_best", "--temperature=5", "--decay=step")
            assert all(word in text.splitlines() for word in words)
            assert ("--zero_added" in text) == ("resnet" in str(name))
            assert (found["learning_rate"], found["weight_decay"]) == ("0.1", "1e-4")
            assert found["mean"] == found["std"] == "0.5,0.5,0.5"


# Of the paper's experiments: epochs, what falls when, c and the values of mu.
GRDA = {
    "vgg16_cifar10": ("600", "garipov", "", "0,5e-4", "0.4,0.51,0.6,0.7"),
    "wide_resnet28_10_cifar10": (
        *("200", "garipov", "", "0,1e-3", "0.4,0.501,0.55,0.6,0.65"),
    ),
    "wide_resnet28_10_cifar100": (
        *("200", "garipov", "", "0,1e-3", "0.501,0.55,0.6,0.65"),
    ),
    "resnet50_imagenet_constant": (
        *("180", "constant", "", "0,0.005", "0.501,0.51,0.55,0.6,0.65,0.7"),
    ),
    "resnet50_imagenet_drop140": (
        *("180", "step", "140", "0,0.005", "0.501,0.51,0.55,0.6,0.65,0.7"),
    ),
    "resnet50_imagenet_drop140_c0.01": ("180", "step", "140", "0.01", "0.4"),
    **{
        f"resnet50_imagenet_drops30_c{cs.split(',')[-1]}": (
            *("180", "step", "30,60,90,120,150", cs, mus),
        )
        for cs, mus in [
            ("0,0.005", "0.65,0.7,0.75,0.8,0.85"),
            ("0.004", "0.65,0.7,0.75"),
            ("0.003", "0.7,0.75"),
            ("0.002", "0.75"),
        ]
    },
}


def test_the_experiments_of_grda_have_the_papers_settings():
    paths = sorted((ROOT / "configs" / "grda").glob("*.flags"))
    assert {path.stem for path in paths} == set(GRDA)
    for path in paths:
        found = read(path)
        recipe = read(ROOT / found["recipe"])
        own = (recipe["epochs"], recipe["decay"], recipe.get("drops", ""))
        assert (*own, found["cs"], found["mus"]) == GRDA[path.stem]
        assert recipe["optimizer"] == "grda" and "weight_decay" not in recipe
        name, _, dataset = path.stem.partition("_imagenet")[0].partition("_cifar")
        data = f"cifar{dataset}" if dataset else "imagenet2012"
        models = {"vgg16": "vgg16_dropout"}.get(name, name)
        assert (found["models"], found["datasets"]) == (models, data)
        assert found["sweepdir"] == f"runs/grda/{path.stem}"
        batch = "256" if found["datasets"] == "imagenet2012" else "128"
        assert (recipe["batch_size"], recipe["learning_rate"]) == (batch, "0.1")
        assert found["ratios"] == "1"


def test_a_rehearsal_runs_the_first_steps_and_finds_what_is_stale(tmp_path):
    good = ROOT / "configs" / "cpu" / "resnet20_cifar10.flags"
    stale = tmp_path / "stale.flags"
    stale.write_text(good.read_text() + "--decay=linear\n")
    command = [sys.executable, "scripts/benchmarks/rehearse.py", str(good), str(stale)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first.startswith("holds  resnet20_cifar10.flags"), done.stderr
    assert second.startswith("FAILS") and "linear" in second
    assert done.returncode == 1
