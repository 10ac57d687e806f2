"""How often a model is read and a twin traced: work that grows with the model."""

import numpy as np
import pytest
from nets import images, randomise, residual_net

import tf_synflow
from tf_synflow.channels.plan import ChannelPlan
from tf_synflow.experiments import run as experiment
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.recipe import Recipe
from tf_synflow.experiments.settings import Pruning
from tf_synflow.flow.linear_twin import LinearTwin
from tf_synflow.keras2 import reading


@pytest.fixture
def counts(monkeypatch):
    """Counts of readings of a model, of its masks, traces of a twin, and plans."""
    found = {"model": 0, "masks": 0, "traces": 0, "plans": 0}

    def counted(what, function):
        def count(*args, **kwargs):
            found[what] += what != "traces" or kwargs.get("traced", False)
            return function(*args, **kwargs)

        return count

    for what, place, name in (
        ("model", reading, "_visit"),
        ("masks", reading, "mask_variables"),
        ("traces", LinearTwin, "__init__"),
        ("plans", ChannelPlan, "__init__"),
    ):
        monkeypatch.setattr(place, name, counted(what, getattr(place, name)))
    return found


POLICY = tf_synflow.PruningPolicy(iterations=3, on_collapse="ignore", progress=False)


@pytest.mark.parametrize(
    ("call", "traces", "plans"),
    [
        (lambda model, pruned: tf_synflow.prune(model, 4, policy=POLICY), 1, 0),
        (lambda model, pruned: POLICY.score(model), 0, 0),
        (lambda model, pruned: tf_synflow.shrink(pruned), 0, 1),
        (lambda model, pruned: tf_synflow.report(pruned), 0, 1),
        (lambda model, pruned: tf_synflow.strip(pruned), 0, 0),
        (lambda model, pruned: tf_synflow.get_masks(pruned), 0, 0),
    ],
    ids=["prune", "score", "shrink", "report", "strip", "get_masks"],
)
def test_a_public_function_reads_its_model_once(call, traces, plans, counts):
    model = randomise(residual_net())
    pruned = tf_synflow.prune(model, 4, policy=POLICY)
    counts.update(dict.fromkeys(counts, 0))
    call(model, pruned)
    assert counts == {"model": 1, "masks": 1, "traces": traces, "plans": plans}


def test_expand_reads_each_of_its_models_once(counts):
    pruned = tf_synflow.prune(randomise(residual_net()), 4, policy=POLICY)
    small = tf_synflow.shrink(pruned)
    counts.update(dict.fromkeys(counts, 0))
    tf_synflow.expand(small, pruned)
    assert counts == {"model": 2, "masks": 2, "traces": 0, "plans": 1}


def test_a_run_reads_its_networks_a_few_times(counts, tmp_path, monkeypatch):
    x, y = images(residual_net(), 24)
    data = Dataset((x, y), (x, y), 4)
    monkeypatch.setattr(experiment.data_lib, "load", lambda *_: data)
    monkeypatch.setattr(experiment.models, "build", lambda *_: residual_net())
    experiment.run(
        tmp_path / "run",
        model="residual",
        dataset="noise",
        pruning=Pruning(4, POLICY, shrink=True),
        recipe=Recipe(2, 8, 0.1, 0),
        flags={},
    )
    # The dense network, the pruned one, the small one before and in training (where the
    # callback looks at it), and the whole one that is written.
    assert counts["model"] == 5
    assert counts["traces"] == 1 and counts["plans"] <= 4
    assert np.load(tmp_path / "run" / "masks.npz").files
