"""The tables behind the paper's figures, and that they can be drawn."""

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nets import images, layers, randomise, residual_net

import tf_synflow
from tf_synflow.experiments import paper_figures as figures
from tf_synflow.experiments import paper_tables as paper_figures
from tf_synflow.keras2.imports import keras
from tf_synflow.masks.counts import kept_count

ROOT = Path(__file__).parents[2]


def chain():
    """Three convolutions and a Dense without biases, on 4x4x2 images."""
    return keras.Sequential(
        [
            keras.Input((4, 4, 2)),
            layers.Conv2D(5, 3, padding="same", activation="relu", use_bias=False),
            layers.Conv2D(6, 3, padding="same", activation="relu", use_bias=False),
            layers.Conv2D(4, 3, padding="same", activation="relu", use_bias=False),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, use_bias=False),
        ]
    )


@pytest.mark.parametrize(
    ("net", "schedule", "count"),
    [
        (chain, "exponential", 1),
        (chain, "exponential", 9),
        (chain, "linear", 4),
        (residual_net, "exponential", 4),
        (residual_net, "linear", 1),
        (residual_net, "linear", 9),
    ],
)
def test_the_largest_step_is_that_of_algorithm_1(net, schedule, count):
    """Score, remove, and add up what was removed, with nothing of the fast loop."""
    model = randomise(net())
    policy = tf_synflow.PruningPolicy()
    masks = {name: np.ones(s.shape, bool) for name, s in policy.score(model).items()}
    size = sum(mask.size for mask in masks.values())
    largest = 0
    for k in range(1, count + 1):
        scores = policy.score(tf_synflow.apply_masks(model, masks))
        last = list(scores.values())[-1]  # every path crosses the last layer
        density = (
            10 ** (-k / count) if schedule == "exponential" else 1 - 0.9 * k / count
        )
        # As many as the formula says; at the end as many as were asked for.
        kept = kept_count(size, 10) if k == count else size - int((1 - density) * size)
        order = sorted(
            (
                (-score[i], p, name, i)
                for p, (name, i) in enumerate(
                    (n, i) for n in scores for i in np.ndindex(scores[n].shape)
                )
                for score in [scores[name]]
                if masks[name][i]
            )
        )
        removed = 0
        for negative, _, name, index in order[kept:]:
            masks[name][index] = False
            removed -= negative
        largest = max(largest, removed / last.sum())
    table = paper_figures.largest_steps(model, [1.0], [count], [schedule])
    assert [(r["schedule"], r["alpha"], r["iterations"]) for r in table] == [
        (schedule, 1.0, count)
    ]
    assert table[0]["share"] == pytest.approx(largest, rel=1e-9)


def test_where_nothing_flows_any_more_nothing_is_removed_of_the_flow():
    """As after a step of the linear schedule that has emptied a layer."""
    model = chain()
    masks = tf_synflow.PruningPolicy("magnitude").masks(model, 1)
    list(masks.values())[1][:] = False
    dead = tf_synflow.apply_masks(model, masks)
    (row,) = paper_figures.largest_steps(dead, [1.0], [3], ["linear"])
    assert row["share"] == 0


def test_layer_densities_are_those_of_the_masks():
    model = randomise(chain())
    data = images(model, 5)
    criteria = ["magnitude", "snip", "synflow"]
    table = paper_figures.layer_densities(model, data, criteria, [0.3, 0.8])
    assert len(table) == 3 * 2 * 4
    for criterion in criteria:
        policy = tf_synflow.PruningPolicy(criterion)
        own = data if criterion == "snip" else None
        for alpha in (0.3, 0.8):
            masks = policy.masks(model, 10**alpha, own)
            rows = [
                r for r in table if (r["criterion"], r["alpha"]) == (criterion, alpha)
            ]
            assert [(r["name"], r["layer"], r["size"], r["density"]) for r in rows] == [
                (n, k, m.size, m.mean()) for k, (n, m) in enumerate(masks.items(), 1)
            ]
    half = [{**row, "density": row["density"] / 2} for row in table]
    mean = paper_figures.mean_densities([table, half])
    for row, whole in zip(mean, table, strict=True):
        assert row == {**whole, "density": 0.75 * whole["density"]}


def test_snip_and_synflow_are_conserved_at_every_unit():
    model = randomise(chain())
    table = paper_figures.conservation(model, images(model, 6))
    units = {"snip": 0, "grasp": 0, "synflow": 0}
    for row in table:
        units[row["criterion"]] += 1
        if row["criterion"] != "grasp":
            tolerance = 1e-12 if row["criterion"] == "synflow" else 1e-4
            assert row["incoming"] == pytest.approx(
                row["outgoing"], rel=tolerance, abs=1e-5 * (tolerance > 1e-9)
            )
    assert units == {"snip": 15, "grasp": 15, "synflow": 15}


def test_conservation_wants_a_chain():
    inputs = keras.Input((4, 4, 2))
    x = layers.Concatenate()([inputs, layers.Conv2D(3, 1)(inputs)])
    outputs = layers.Dense(2)(layers.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    with pytest.raises(ValueError, match="layer 1 has 3 units and the next takes 5"):
        paper_figures.conservation(model, images(model, 3))


def test_layer_sizes_hold_the_mean_scores():
    model = randomise(chain())
    rows = paper_figures.layer_sizes(model, None, ["magnitude"])
    kernels = [layer.kernel.numpy() for layer in model.layers if layer.weights]
    for row, kernel in zip(rows, kernels, strict=True):
        assert row["size"] == kernel.size
        assert row["score"] == pytest.approx(np.abs(kernel).mean(), rel=1e-6)


RUNS = [
    {"model": "resnet20", "dataset": "cifar10", "criterion": c, "ratio": r, "seed": s,
     "final_accuracy": a, "best_accuracy": 0.9}
    for c, r, s, a in [
        ("synflow", "100", "0", 0.5), ("synflow", "100", "1", 0.7),
        ("synflow", "1", "0", 0.8), ("snip", "0.9", "0", 0.6),
    ]
]  # fmt: skip


def test_accuracies_are_spread_over_the_seeds():
    rows = paper_figures.accuracies(RUNS, "final")
    found = {(r["criterion"], round(r["alpha"], 9)): r for r in rows}
    assert set(found) == {("synflow", 0), ("synflow", 2), ("snip", 1)}
    two = found["synflow", 2]
    assert (two["mean"], two["min"], two["max"]) == pytest.approx((60, 50, 70))
    assert {r["mean"] for r in paper_figures.accuracies(RUNS, "best")} == {90}


def test_runs_of_several_mu_are_no_seeds_of_one_curve():
    runs = [{**RUNS[0], "c": "0.001", "mu": mu} for mu in ("0.4", "0.51")]
    with pytest.raises(ValueError, match=r"several values of mu \(0.4, 0.51\)"):
        paper_figures.accuracies(runs, "final")
    assert paper_figures.accuracies(runs[:1], "final")[0]["mean"] == 50


def test_published_numbers_are_read_for_their_network_alone():
    file = ROOT / "docs" / "published" / "synflow_figure6_best_top1.csv"
    rows = paper_figures.published(file, "vgg16_bn", "cifar10", "best")
    assert len(rows) == 52
    two = next(r for r in rows if r["criterion"] == "synflow" and r["alpha"] == 2)
    assert (two["mean"], two["min"], two["max"]) == (90.08, 90.02, 90.2)
    file = ROOT / "docs" / "published" / "synflow_figure1_vgg16_cifar100.csv"
    rows = paper_figures.published(file, "vgg16_bn", "cifar100", "final")
    assert len(rows) == 100 and rows[0]["mean"] == 72.9333


def test_every_figure_can_be_drawn(tmp_path):
    model = randomise(chain())
    data = images(model, 4)
    names = list(figures.STYLES)
    accuracy = [{**RUNS[0], "criterion": name} for name in names] + RUNS[2:3]
    table = paper_figures.accuracies(accuracy, "final")
    drawn = {
        "1": (figures.accuracy_figure, table, table[1:], "final"),
        "2": (
            figures.densities_figure,
            paper_figures.layer_densities(model, data, ["snip", "synflow"], [1.0]),
        ),
        "3": (figures.conservation_figure, paper_figures.conservation(model, data)),
        "4": (figures.sizes_figure, paper_figures.layer_sizes(model, data, names)),
        "7": (
            figures.steps_figure,
            paper_figures.largest_steps(model, [0.5, 1.0], [1, 3]),
        ),
    }
    for name, (draw, *tables) in drawn.items():
        for ending, start in ((".png", b"\x89PNG"), (".svg", b"<?xml")):
            path = tmp_path / f"{name}{ending}"
            draw(path, *tables)
            assert path.read_bytes().startswith(start)
    assert len(list(tmp_path.iterdir())) == 2 * len(drawn)


def test_the_script_draws_from_a_sweep(tmp_path):
    (tmp_path / "sweep").mkdir()
    with open(tmp_path / "sweep" / "runs.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, RUNS[0])
        writer.writeheader()
        writer.writerows(RUNS)
    flags = ["--figure=6", f"--runs={tmp_path}/sweep", f"--output={tmp_path}/six"]
    command = [sys.executable, "-m", "tf_synflow", "figures", *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"sweep", "six.csv", "six.png", "six.svg", "six.html"}
