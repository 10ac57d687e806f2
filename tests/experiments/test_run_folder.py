"""The folder of a run: what it refuses, what it deletes, and what it never touches."""

import json
import multiprocessing
import os
import shutil

import numpy as np
import pytest

import tf_synflow
from tf_synflow.experiments import lock
from tf_synflow.experiments import run_folder as module
from tf_synflow.experiments.results import read_results
from tf_synflow.experiments.run_folder import run_folder
from tf_synflow.files.whole import write_json

FLAGS = {"model": "resnet20", "ratio": 10, "workdir": "x", "data_dir": "a"}
KERNEL = "conv/kernel"
MASKS = {KERNEL: np.array([True, False])}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def finish(folder, flags=FLAGS):
    with run_folder(folder, flags) as run:
        run.keep_masks(MASKS, 1.5)
        (folder / "history.csv").write_text("epoch,loss\n1,0.5\n")
        results = {**whole(), "flags": flags, "files": run.digests()}
        write_json(folder / "results.json", results)
    return results


class Failed(Exception):
    pass


def fail(folder, flags=FLAGS, *files):
    with pytest.raises(Failed), run_folder(folder, flags):
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text("mine")
        raise Failed


def test_a_new_run_leaves_what_it_wrote_and_no_more(tmp_path):
    finish(tmp_path / "deep" / "run")
    assert names(tmp_path / "deep" / "run") == [
        "history.csv",
        "masks.npz",
        "results.json",
    ]


def test_a_run_that_fails_before_its_masks_leaves_nothing(tmp_path):
    fail(tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_later_goes_on(tmp_path):
    with pytest.raises(Failed), run_folder(tmp_path, FLAGS) as run:
        assert run.masks() is None
        run.keep_masks(MASKS, 2.5)
        raise Failed
    with run_folder(tmp_path, {**FLAGS, "data_dir": "b", "workdir": "y"}) as run:
        np.testing.assert_array_equal(run.masks()["conv/kernel"], [True, False])
        assert run.prune_seconds() == 2.5


def test_levels_that_were_trained_are_not_forgotten(tmp_path):
    """An error, or Ctrl-C, while a level is trained: there are no masks yet."""
    fail(tmp_path, FLAGS, "level_1/checkpoints/epoch_1/state")
    assert names(tmp_path) == ["flags.json", "level_1"]
    with run_folder(tmp_path, FLAGS):
        assert (tmp_path / "level_1/checkpoints/epoch_1/state").exists()


@pytest.mark.parametrize("mine", [".lock", "thesis.tex", "level_1", "masks.npz"])
def test_a_folder_of_other_things_is_left_as_it_is(mine, tmp_path):
    (tmp_path / mine).write_text("precious")
    with pytest.raises(FileExistsError, match="holds files, but no run"):
        with run_folder(tmp_path, FLAGS):
            pass
    assert names(tmp_path) == [mine]
    assert (tmp_path / mine).read_text() == "precious"


def test_a_finished_run_is_given_back_and_nothing_in_it_is_touched(tmp_path):
    results = finish(tmp_path)
    mine = [
        "notes/.old.drafts/thesis.tex", ".venv3.11/python", "checkpoints/mine",
        "level_best/checkpoints/best", "pruned.json", ".masks.npz.backup01/x",
    ]  # fmt: skip
    for file in mine:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("precious")
    with run_folder(tmp_path, FLAGS) as run:
        assert run.results == results
    for file in mine:
        assert (tmp_path / file).read_text() == "precious"


def leftovers(folder):
    """What `finish` leaves if it is killed when it has just written its results."""
    own = [
        "checkpoints/epoch_3/state.index", "level_1/checkpoints/epoch_3/state.index",
        "level_1/history.csv", "pruned.keras", ".results.json.abcd1234/x",
    ]  # fmt: skip
    for file in own:
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text("x")
    raise Failed


def test_a_run_killed_after_its_results_is_tidied_when_it_is_opened(
    tmp_path, monkeypatch
):
    with monkeypatch.context() as patch, pytest.raises(Failed):
        patch.setattr(module.RunFolder, "tidy", lambda self: leftovers(tmp_path))
        with run_folder(tmp_path, FLAGS) as run:
            run.note_versions({"python": "3.11"})
            run.keep_masks(MASKS, 1.5)
            results = {**whole(), "flags": FLAGS}
            write_json(tmp_path / "results.json", results)
    assert len(names(tmp_path)) == 9
    with pytest.raises(FileExistsError, match="was begun with ratio=10, not 20"):
        with run_folder(tmp_path, {**FLAGS, "ratio": 20}):
            pass
    assert len(names(tmp_path)) == 9
    with run_folder(tmp_path, FLAGS) as run:
        assert run.results == results
    assert names(tmp_path) == ["level_1", "masks.npz", "results.json"]
    assert names(tmp_path / "level_1") == ["history.csv"]


@pytest.mark.parametrize("mine", ["{}", "[1]", '{"model": "vgg"}', "\x00"])
def test_flags_of_something_else_in_a_finished_run_are_left_alone(mine, tmp_path):
    finish(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "flags.json").write_text(mine)
    with run_folder(tmp_path, FLAGS):
        pass
    found = ["checkpoints", "flags.json", "history.csv", "masks.npz", "results.json"]
    assert names(tmp_path) == found
    assert (tmp_path / "flags.json").read_text() == mine


def test_versions_of_all_processes_of_a_run_are_noted(tmp_path):
    old, new = {"python": "3.11"}, {"python": "3.12"}
    for now, before in [(old, []), (old, []), (new, [old]), (old, [new])]:
        with pytest.raises(Failed), run_folder(tmp_path, FLAGS) as run:
            assert run.note_versions(now) == before
            run.keep_masks(MASKS, 1.5)
            raise Failed
    write_json(tmp_path / "versions.json", {})
    with pytest.raises(ValueError, match="versions.json' is damaged: expected a list"):
        with run_folder(tmp_path, FLAGS) as run:
            run.note_versions(old)


def test_a_run_that_fails_with_nothing_but_its_versions_leaves_nothing(tmp_path):
    with pytest.raises(Failed), run_folder(tmp_path / "run", FLAGS) as run:
        run.note_versions({"python": "3.11"})
        raise Failed
    assert not (tmp_path / "run").exists()


def test_an_unfinished_run_deletes_only_its_own_leftovers(tmp_path):
    fail(tmp_path, FLAGS, "history.csv")
    own = [
        ".masks.npz.abcd1234/masks.npz", "level_2/.history.csv.abcd_123/x",
        ".versions.json.abcd1234/x",
    ]  # fmt: skip
    mine = ["notes/.old.drafts/x", "runs/.history.csv.abcd_123/x", ".keep.me12/x"]
    for file in own + mine:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("x")
    with run_folder(tmp_path, FLAGS):
        assert not any((tmp_path / file).exists() for file in own)
        assert all((tmp_path / file).exists() for file in mine)


def test_a_run_killed_while_it_noted_its_flags_begins_anew(tmp_path):
    (tmp_path / ".flags.json.abcd1234").mkdir()
    finish(tmp_path)
    assert names(tmp_path) == ["history.csv", "masks.npz", "results.json"]


def test_other_flags_are_refused_by_name(tmp_path):
    fail(tmp_path, FLAGS, "history.csv")
    with pytest.raises(FileExistsError, match="was begun with ratio=10, not 100"):
        with run_folder(tmp_path, {**FLAGS, "ratio": 100}):
            pass


def test_another_archive_of_tiny_imagenet_is_other_data(tmp_path):
    tiny = {**FLAGS, "dataset": "tiny_imagenet"}
    finish(tmp_path, tiny)
    with pytest.raises(FileExistsError, match="was begun with data_dir='a', not 'b'"):
        with run_folder(tmp_path, {**tiny, "data_dir": "b"}):
            pass


@pytest.mark.parametrize("content", ["hello", "[]", "{}", '{"flags": []}'])
def test_damaged_results_are_named(content, tmp_path):
    (tmp_path / "results.json").write_text(content)
    with pytest.raises((ValueError, FileExistsError), match=str(tmp_path)):
        with run_folder(tmp_path, FLAGS):
            pass


WRONG = {
    "an accuracy": lambda r: r["train"].update(final_accuracy=0.99),
    "a best accuracy": lambda r: r["train"].update(best_accuracy=0.3),
    "a time": lambda r: r["prune"].update(seconds=-1),
    "a text for a time": lambda r: r["prune"].update(seconds="1"),
    "weights kept": lambda r: r["prune"].update(kept=3),
    "weights of a layer": lambda r: r["layers"][0].update(size=5),
    "a density": lambda r: r["layers"][0].update(density=0.25),
    "a shape": lambda r: r["layers"][0].update(shape=[3]),
    "a layer": lambda r: r["layers"].pop(),
    "an emptied layer": lambda r: r["prune"].update(collapsed_layers=[]),
    "a criterion": lambda r: r["flags"].update(criterion="snip"),
    "a number of epochs": lambda r: r["train"].update(epochs=3),
    "a missing part": lambda r: r.pop("train"),
    "a missing number": lambda r: r["train"].pop("best_accuracy"),
    "no flags": lambda r: r.update(flags=[]),
}


def whole(**flags):
    """Results as `experiment.run` writes them, of a network of two weights tensors."""

    def layer(name, kept):
        row = {"name": name, "shape": [2, 2], "size": 4, "kept": kept}
        return {**row, "density": kept / 4, "macs": 4}

    return {
        "flags": {"criterion": "synflow", "ratio": 4.0, "epochs": 2, **flags},
        "versions": {"python": "3.11.7"},
        "prune": {
            "criterion": "synflow", "ratio": 4.0, "prunable": 8, "kept": 2,
            "seconds": 1.5, "collapsed_layers": ["b/kernel"],
        },
        "train": {
            "epochs": 2, "final_accuracy": 0.5, "best_accuracy": 0.75,
            "final_top5_accuracy": 0.875, "final_sparsity": 0.75, "seconds": 9.5,
        },
        "layers": [layer("a/kernel", 2), layer("b/kernel", 0)],
    }  # fmt: skip


def test_results_with_another_digit_are_refused_wherever_it_is(tmp_path):
    """One digit at a time, also where it would be as likely as the right one."""
    path, right = tmp_path / "results.json", whole()
    write_json(path, {**right, "files": {}})
    assert read_results(path) == {**right, "files": {}}
    text, refused = path.read_text(), 0
    for place, sign in enumerate(text):
        if sign.isdigit():
            path.write_text(f"{text[:place]}{(int(sign) + 1) % 10}{text[place + 1 :]}")
            with pytest.raises(ValueError, match=f"{path}' is damaged"):
                read_results(path)
            refused += 1
    assert refused > 80


@pytest.mark.parametrize("wrong", [None, *WRONG])
def test_results_without_a_digest_are_taken_if_they_agree(wrong, tmp_path, caplog):
    """Of earlier versions: all numbers that depend on each other are compared."""
    path, results = tmp_path / "results.json", whole()
    if wrong is None:
        path.write_text(json.dumps(results))
        assert read_results(path) == results == read_results(path)
        assert caplog.text.count("results.json has no digest") == 1
        return
    WRONG[wrong](results)
    path.write_text(json.dumps(results))
    with pytest.raises(ValueError, match=f"{path}' is damaged: .*Restore it from"):
        read_results(path)


def test_another_file_in_place_of_the_results_is_refused(tmp_path):
    write_json(tmp_path / "results.json", FLAGS)
    with pytest.raises(ValueError, match="it has no flags, no versions"):
        read_results(tmp_path / "results.json")


def test_results_that_have_lost_their_digest_are_refused(tmp_path):
    write_json(tmp_path / "results.json", {**whole(), "files": {}})
    results = json.loads((tmp_path / "results.json").read_text())
    del results["digest"]
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match="the key 'digest' is missing"):
        read_results(tmp_path / "results.json")


@pytest.mark.parametrize("name", ["history.csv", "masks.npz"])
def test_small_files_of_a_finished_run_are_compared_with_its_results(name, tmp_path):
    finish(tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes().replace(b"5", b"6") + b"1")
    with pytest.raises(ValueError, match=f"{name}' is damaged, or was edited"):
        with run_folder(tmp_path, FLAGS):
            pass
    path.unlink()  # not needed: the results are whole
    with run_folder(tmp_path, FLAGS) as run:
        assert run.results["flags"] == FLAGS


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("pruned.json", lambda path: path.write_text("{}"), "'digest' is missing"),
        ("pruned.json", lambda path: path.write_text(""), "is damaged: Expecting"),
        ("pruned.json", lambda path: path.unlink(), "is missing. Delete masks.npz"),
        (
            "pruned.json",
            lambda path: path.write_text(path.read_text().replace("2.5", "2.6")),
            "does not match its digest",
        ),
        (
            "pruned.json",
            lambda path: shutil.copy(path.with_name("flags.json"), path),
            "belongs to another run. Delete masks.npz",
        ),
        ("masks.npz", lambda path: path.write_text(""), "no file of masks"),
        (
            "masks.npz",
            lambda path: tf_synflow.save_masks(path, {KERNEL: ~MASKS[KERNEL]}),
            "holds other masks than this run has made",
        ),
        ("flags.json", lambda path: path.write_text("{}"), "'digest' is missing"),
        (
            "flags.json",
            lambda path: path.write_text(path.read_text().replace("10", "100")),
            "does not match its digest. Choose another --workdir, or delete",
        ),
    ],
)
def test_damage_is_found_when_a_run_is_opened(name, damage, message, tmp_path):
    """Before anything is computed, and in words that name the file."""
    with pytest.raises(Failed), run_folder(tmp_path, FLAGS) as run:
        run.keep_masks(MASKS, 2.5)
        raise Failed
    damage(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=message) as refused:
        with run_folder(tmp_path, FLAGS):
            raise Failed
    assert str(tmp_path / name) in str(refused.value)


def test_another_network_than_the_one_of_the_masks_is_refused(tmp_path):
    with pytest.raises(Failed), run_folder(tmp_path, FLAGS) as run:
        (tmp_path / "pruned.keras").write_text("a network")
        run.keep_masks(MASKS, 2.5)
        raise Failed
    (tmp_path / "pruned.keras").write_text("another")
    with pytest.raises(ValueError, match="pruned.keras' is damaged. Delete it and"):
        with run_folder(tmp_path, FLAGS) as run:
            run.network()


def test_runs_have_names_that_follow_their_flags(tmp_path):
    def name(**change):
        return module.RunFolder(tmp_path, tmp_path, {**FLAGS, **change}).run

    # What says where things are, or was not there when the run was begun.
    same = [name(), name(workdir="y", data_dir="b"), name(multiple_of=None)]
    assert len(set(same)) == 1
    assert name(ratio=11) != name() != name(dataset="tiny_imagenet")


def test_a_second_process_is_kept_out_also_when_the_lock_is_deleted(tmp_path):
    with run_folder(tmp_path, FLAGS):
        with pytest.raises(BlockingIOError, match="another process is at work in"):
            with run_folder(tmp_path, FLAGS):
                pass


def test_a_lock_of_a_deleted_file_is_no_lock(tmp_path, monkeypatch):
    """The one before deletes its lock just between our opening and our locking it."""
    (tmp_path / lock.LOCK).touch()
    flock, calls = lock.fcntl.flock, []

    def late(file, how):
        if not calls:
            os.unlink(tmp_path / lock.LOCK)
        calls.append(file)
        flock(file, how)

    monkeypatch.setattr(lock.fcntl, "flock", late)
    with lock.locked(tmp_path):
        assert len(calls) == 2
        with open(tmp_path / lock.LOCK) as other, pytest.raises(BlockingIOError):
            flock(other, lock.fcntl.LOCK_EX | lock.fcntl.LOCK_NB)


def enter(folder, out):
    for _ in range(50):
        try:
            with lock.locked(folder):
                out.put(("in", os.getpid()))
                out.put(("out", os.getpid()))
        except BlockingIOError:
            pass


def test_many_processes_are_never_two_inside(tmp_path):
    context = multiprocessing.get_context("fork")
    manager = context.SimpleQueue()
    workers = [context.Process(target=enter, args=(tmp_path, manager)) for _ in "abcd"]
    for worker in workers:
        worker.start()
    seen = []
    while any(w.is_alive() for w in workers) or not manager.empty():
        if not manager.empty():
            seen.append(manager.get())
    for worker in workers:
        worker.join()
    assert len(seen) > 50
    for (kind, who), (after, same) in zip(seen[::2], seen[1::2], strict=True):
        assert (kind, after) == ("in", "out") and who == same


def test_who_is_not_the_chief_writes_elsewhere(tmp_path):
    with run_folder(tmp_path / "run", FLAGS, chief=False) as run:
        run.keep_masks(MASKS, 3.5)
        assert run.prune_seconds() == 3.5
        elsewhere = run.written
    assert not elsewhere.exists() and not (tmp_path / "run").exists()
