"""A run that begins with the weights in a file."""

import numpy as np
import pytest
import tensorflow as tf
from nets import randomise, residual_net
from programs import answers

import tf_synflow
from tf_synflow.experiments import training
from tf_synflow.experiments.data import Dataset
from tf_synflow.experiments.recipe import Recipe
from tf_synflow.experiments.starting import start_from
from tf_synflow.frameworks import read
from tf_synflow.keras2.imports import keras


def values(model):
    return {name: v.numpy() for name, v in read(model).weights.items()}


def same(one, other):
    assert list(one) == list(other)
    for name, value in one.items():
        assert value.tobytes() == other[name].tobytes(), name


def as_keras_file(model, folder):
    model.save(folder / "model.keras")
    return folder / "model.keras", values(model)


def as_h5_file(model, folder):
    model.save(folder / "model.h5")
    return folder / "model.h5", values(model)


def as_weights(model, folder):
    model.save_weights(folder / "model.weights.h5")
    return folder / "model.weights.h5", values(model)


def as_saved_model(model, folder):
    model.save(folder / "model")
    return folder / "model", values(model)


def as_checkpoint(model, folder):
    tf.train.Checkpoint(model=model).write(str(folder / "some"))
    return folder / "some", values(model)


def as_pruned_model(model, folder):
    pruned = tf_synflow.prune(model, 2, iterations=1)
    tf_synflow.strip(pruned).save(folder / "model.keras")
    return folder / "model.keras", values(pruned)


def as_checkpoint_of_a_run(model, folder):
    """As a run leaves it that was killed after its first epoch."""
    pruned = tf_synflow.prune(model, 2, iterations=1)
    generator = np.random.default_rng(0)
    x = generator.random((8, 4, 4, 2), "float32")
    data = Dataset((x, np.arange(8) % 4), (x, np.arange(8) % 4), classes=4)
    recipe = Recipe(epochs=1, batch_size=4, learning_rate=0.1, seed=0)
    training.train(read(pruned), data, folder, recipe)
    return folder / "checkpoints" / "epoch_1", values(pruned)


WAYS = [
    as_keras_file,
    as_h5_file,
    as_weights,
    as_saved_model,
    as_checkpoint,
    as_pruned_model,
    as_checkpoint_of_a_run,
]


@pytest.mark.parametrize("save", WAYS, ids=lambda save: save.__name__)
def test_all_weights_are_those_of_the_file(save, tmp_path):
    path, want = save(randomise(residual_net()), tmp_path)
    network = read(residual_net())
    start_from(network, path)
    same(values(network.model), want)


@pytest.mark.parametrize("save", WAYS, ids=lambda save: save.__name__)
def test_those_of_another_network_are_refused_and_nothing_changes(save, tmp_path):
    path, _ = save(randomise(residual_net(classes=4)), tmp_path)
    model = residual_net(classes=5)
    before = values(model)
    with pytest.raises(ValueError, match="does not hold the weights of 'residual_net'"):
        start_from(read(model), str(path))
    same(values(model), before)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no '.*none' to start from"):
        start_from(read(residual_net()), tmp_path / "none")


def test_a_run_starts_from_what_the_flag_names(tmp_path):
    """With a learning rate of 0 it ends where it began."""
    first, second = tmp_path / "first", tmp_path / "second"
    command = ["train", "--model=small_cnn", "--dataset=digits", "--ratio=1"]
    command += ["--epochs=1", "--batch_size=64", "--train_images=128"]
    start = f"--start_from={first / 'model.keras'}"
    said = answers(
        [
            [*command, f"--workdir={first}", "--momentum=0.5", "--nonesterov"],
            [
                *[*command, f"--workdir={second}", "--seed=1", start],
                *["--optimizer=grda", "--c=0", "--learning_rate=0", "--decay=garipov"],
            ],
            [*command, f"--workdir={tmp_path / 'third'}", "--start_from=README.md"],
        ]
    )
    assert [error.splitlines()[-1] for _, error in said[:2]] == ["exit 0"] * 2, said
    one, other = (keras.models.load_model(f / "model.keras") for f in (first, second))
    same(values(one), values(other))
    assert "README.md" in said[2][1] and not (tmp_path / "third").exists()
