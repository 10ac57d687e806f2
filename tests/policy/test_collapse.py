import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from nets import layers

import tf_synflow
from tf_synflow.experiments.collapse import first_collapse
from tf_synflow.keras2.imports import keras

ALPHAS = [0.25, 0.5, 0.75, 1.0, 1.25]


def chain():
    """Three layers of 100 weights; the middle one's are the smallest."""
    inputs = x = keras.Input((10,))
    for name in "abc":
        x = layers.Dense(10, use_bias=False, name=name)(x)
    model = keras.Model(inputs, x)
    generator = np.random.default_rng(0)
    for name, scale in (("a", 3.0), ("b", 1.0), ("c", 2.0)):
        # Within (scale - 0.5, scale + 0.5): the layers do not overlap.
        value = generator.uniform(scale - 0.5, scale + 0.5, (10, 10))
        model.get_layer(name).kernel.assign(value)
    return model


@pytest.mark.parametrize("iterations", [1, 4])
def test_magnitude_empties_the_layer_of_small_weights_first(iterations):
    """b is empty once 200 or fewer of 300 are kept: 10^0.25 keeps 169, so at once."""
    policy = tf_synflow.PruningPolicy("magnitude", iterations=iterations)
    assert first_collapse(chain(), policy, [0.1, *ALPHAS]) == (0.25, ["b/kernel"])
    assert first_collapse(chain(), policy, [0.0, 0.1, 0.15]) == (None, [])


def test_synflow_keeps_every_layer():
    policy = tf_synflow.PruningPolicy(progress=False)
    assert first_collapse(chain(), policy, ALPHAS) == (None, [])


def test_one_scoring_serves_all_alphas():
    calls = []

    def criterion(model, data):
        calls.append(data)
        weights = {name: model.get_layer(name).kernel.numpy() for name in "abc"}
        return {f"{name}/kernel": np.abs(w) for name, w in weights.items()}

    found = first_collapse(
        chain(), tf_synflow.PruningPolicy(criterion), [0.1, 0.15, 0.25, 1.0], "data"
    )
    assert found == (0.25, ["b/kernel"])
    assert calls == ["data"]


def test_the_script_writes_a_table(tmp_path):
    command = [
        sys.executable, "scripts/benchmarks/collapse.py", "--model=resnet20",
        "--classes=4", "--size=8", "--images=8", "--criteria=magnitude,snip",
        "--seeds=2",
        "--first=1.5", "--last=3.5", "--step=1", f"--output={tmp_path / 'table.csv'}",
    ]  # fmt: skip
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with open(tmp_path / "table.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["criterion"] for row in table] == ["magnitude"] * 2 + ["snip"] * 2
    assert [row["seed"] for row in table] == list("0101")
    keras.utils.set_random_seed(1)  # the second row, by hand
    model = tf_synflow.models.build("resnet20", (8, 8, 3), 4)
    policy = tf_synflow.PruningPolicy("magnitude", on_collapse="ignore")
    emptied = [
        alpha
        for alpha in (1.5, 2.5, 3.5)
        if not all(m.any() for m in policy.masks(model, 10**alpha).values())
    ]
    assert table[1]["first_alpha"] == f"{emptied[0]:g}"


def test_a_pruned_model_goes_on_from_its_masks():
    masks = tf_synflow.PruningPolicy("magnitude").masks(chain(), 1)
    masks["a/kernel"][:5] = False  # 50 of the largest weights are gone
    pruned = tf_synflow.apply_masks(chain(), masks)
    policy = tf_synflow.PruningPolicy("magnitude", on_collapse="ignore")
    # 250 are left, of which b has the lowest 100: empty from 150 of 300 on.
    assert first_collapse(pruned, policy, [0.29]) == (None, [])
    assert first_collapse(pruned, policy, [0.31]) == (0.31, ["b/kernel"])


def test_no_alpha_is_no_answer():
    with pytest.raises(ValueError, match="alphas is empty"):
        first_collapse(chain(), tf_synflow.PruningPolicy("magnitude"), [])
