"""The grid and its bookkeeping, with a program in place of train.py that is quick."""

import csv
import json
import locale
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from programs import answers

from tf_synflow.experiments import sweep
from tf_synflow.files.whole import write_csv, write_json

AXES = {
    "model": ["a", "b"],
    "dataset": ["d"],
    "criterion": ["x", "y", "z"],
    "ratio": ["10"],
    "seed": ["0", "1"],
}
# Writes results whose accuracy is the seed's; fails for criterion z.
PROGRAM = """
import json, pathlib, sys
flags = dict(flag[2:].split("=") for flag in sys.argv[1:])
if flags["criterion"] == "z":
    sys.exit("z is no criterion")
folder = pathlib.Path(flags["workdir"])
folder.mkdir(exist_ok=True)
(folder / "calls").write_text(json.dumps(flags))
accuracy = 0.5 + 0.1 * int(flags["seed"])
flags = {axis: flags[axis] for axis in ("model", "dataset", "criterion")} | {
    "ratio": float(flags["ratio"]), "seed": int(flags["seed"])
}
pruned = {key: flags[key] for key in ("criterion", "ratio")}
layers = [("k", 70, 7), ("l", 5, 0)]
(folder / "results.json").write_text(json.dumps({
    "flags": flags,
    "versions": {},
    "prune": {
        **pruned, "prunable": 75, "kept": 7, "seconds": 1.5, "collapsed_layers": ["l"]
    },
    "train": {
        "epochs": 3, "final_accuracy": accuracy, "best_accuracy": 0.9,
        "final_top5_accuracy": 0.95, "seconds": 2.0,
    },
    "layers": [
        {"name": n, "shape": [s], "size": s, "kept": k, "density": k / s}
        for n, s, k in layers
    ],
}))
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return [sys.executable, str(path)]


def test_the_grid_is_every_combination_and_shards_are_its_parts():
    runs = sweep.grid(AXES)
    assert len(runs) == 12
    assert len({tuple(run.values()) for run in runs}) == 12
    parts = [sweep.grid(AXES, f"{i}/5") for i in range(5)]
    assert sorted(map(str, sum(parts, []))) == sorted(map(str, runs))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("shard", ["5/5", "-1/5", "1", "a/b", ""])
def test_bad_shards_are_refused(shard):
    with pytest.raises(ValueError, match="shard must be i/n"):
        sweep.grid(AXES, shard)


def test_a_value_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="give each seed once"):
        sweep.grid({**AXES, "seed": ["0", "0"]})


def test_a_ratio_that_is_written_in_two_ways_is_one():
    with pytest.raises(ValueError, match="give each ratio once"):
        sweep.grid({**AXES, "ratio": ["10", "10.0"]})


def test_what_the_grid_sets_cannot_be_set_for_all(tmp_path, program):
    with pytest.raises(ValueError, match=r"'--seed=7'.* the grid sets them"):
        sweep.carry_out(tmp_path, sweep.grid(AXES), ["--seed=7"], program)


def test_an_empty_axis_is_refused():
    with pytest.raises(ValueError, match="give at least one seed"):
        sweep.grid({**AXES, "seed": []})


def test_runs_fail_by_themselves_and_are_never_repeated(tmp_path, program):
    folder, runs = tmp_path / "sweep", sweep.grid(AXES)
    (folder / "a-d-x-10-0").mkdir(parents=True)  # of a sweep that was killed
    failed = sweep.carry_out(folder, runs, ["--epochs=3"], program)
    assert [run["criterion"] for run in failed] == ["z"] * 4
    error = (folder / "a-d-z-10-1.error.txt").read_text()
    assert "z is no criterion" in error and "--seed=1" in error
    call = json.loads((folder / "b-d-y-10-1" / "calls").read_text())
    assert call["epochs"] == "3" and call["model"] == "b" and call["ratio"] == "10"
    names = {path.name for path in folder.iterdir()}
    assert len(names) == 13
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("calls")}
    Path(program[1]).write_text(PROGRAM.replace('"z"', '"none"'))
    assert sweep.carry_out(folder, runs, ["--epochs=3"], program) == []
    assert not list(folder.glob("*.error.txt"))
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert len(list(folder.rglob("calls"))) == 12


def test_other_flags_want_another_folder(tmp_path, program):
    runs = sweep.grid({axis: values[:1] for axis, values in AXES.items()})
    sweep.carry_out(tmp_path / "sweep", runs, ["--epochs=3"], program)
    with pytest.raises(ValueError, match=r"begun with the flags .'--epochs=3'."):
        sweep.carry_out(tmp_path / "sweep", runs, ["--epochs=4"], program)


def test_a_flag_file_stands_for_what_it_holds_and_data_may_move(tmp_path, program):
    runs = sweep.grid({axis: values[:1] for axis, values in AXES.items()})
    recipe = tmp_path / "recipe.flags"
    recipe.write_text("# a comment\n--epochs=3\n")
    first = [f"--flagfile={recipe}"]
    sweep.carry_out(tmp_path / "sweep", runs, first, program)
    same = ["--epochs", "3", "--data_dir", "/elsewhere", "--nodownload"]
    sweep.carry_out(tmp_path / "sweep", runs, same, program)
    recipe.write_text("--epochs=4\n")
    with pytest.raises(ValueError, match=r"begun with the flags .'--epochs=3'."):
        sweep.carry_out(tmp_path / "sweep", runs, first, program)
    with pytest.raises(ValueError, match="none.flags"):
        sweep.carry_out(tmp_path / "other", runs, ["--flagfile=none.flags"], program)
    with pytest.raises(ValueError, match="the grid sets them"):
        sweep.carry_out(tmp_path / "other", runs, ["--seed", "7"], program)
    assert not (tmp_path / "other").exists()
    tiny = [{**run, "dataset": "tiny_imagenet"} for run in runs]
    with pytest.raises(ValueError, match="begun with the flags"):
        sweep.carry_out(tmp_path / "sweep", tiny, same, program)


def test_the_dense_network_is_trained_once():
    runs = sweep.grid({**AXES, "ratio": ["1", "10"]})
    dense = [run for run in runs if run["ratio"] == "1"]
    assert [(r["model"], r["criterion"], r["seed"]) for r in dense] == [
        ("a", "x", "0"), ("a", "x", "1"), ("b", "x", "0"), ("b", "x", "1")
    ]  # fmt: skip
    assert len(runs) == 16


GRDA = {
    **{axis: values[:1] for axis, values in AXES.items()},
    "c": ["0", "5e-4", "0.001"],
    "mu": ["0.51", "0.6"],
}


def test_c_and_mu_are_axes_if_they_are_given_and_sgd_is_there_once():
    runs = sweep.grid(GRDA)
    assert [(run["c"], run["mu"]) for run in runs] == [
        ("0", "0.51"),
        *[(c, mu) for c in ("5e-4", "0.001") for mu in ("0.51", "0.6")],
    ]
    names = [sweep.folder(Path("s"), run).name for run in runs]
    assert names[:2] == ["a-d-x-10-0-c0-mu0.51", "a-d-x-10-0-c5e-4-mu0.51"]
    assert len(set(names)) == 5
    (only_mu, *_) = sweep.grid({**GRDA, "c": []})
    assert sweep.folder(Path("s"), only_mu).name == "a-d-x-10-0-mu0.51"
    (plain,) = sweep.grid({**GRDA, "c": [], "mu": []})
    assert sweep.folder(Path("s"), plain).name == "a-d-x-10-0"
    with pytest.raises(ValueError, match="give each c once"):
        sweep.grid({**GRDA, "c": ["5e-4", "0.0005"]})


def test_runs_with_other_c_and_mu_are_told_apart(tmp_path, program):
    Path(program[1]).write_text(
        PROGRAM.replace(
            "pruned =",
            'flags |= {"c": float(sys.argv[-2][4:]), "mu": float(sys.argv[-1][5:])}\n'
            "pruned =",
        ).replace('"seconds": 2.0', '"seconds": 2.0, "final_sparsity": flags["mu"]')
    )
    runs = sweep.grid({**GRDA, "seed": ["0", "1"]})
    with pytest.raises(ValueError, match="Add --optimizer=grda"):
        sweep.carry_out(tmp_path, runs, ["--epochs=3"], program)
    with pytest.raises(ValueError, match="the grid sets them"):
        sweep.carry_out(tmp_path, runs, ["--optimizer=grda", "--mu=0.6"], program)
    assert sweep.carry_out(tmp_path, runs, ["--optimizer=grda"], program) == []
    rows = sweep.rows(tmp_path, runs)
    assert [row["sparsity"] for row in rows] == [float(run["mu"]) for run in runs]
    summary = sweep.summary(rows)
    found = [(row["c"], row["mu"], row["seeds"]) for row in summary]
    assert found == [
        ("0", "0.51", 2),
        *[(c, mu, 2) for c in ("5e-4", "0.001") for mu in ("0.51", "0.6")],
    ]
    write_csv(tmp_path / "runs.csv", rows)
    write_csv(tmp_path / "summary.csv", summary)
    assert [row["c"] for row in sweep.read_rows(tmp_path)] == [run["c"] for run in runs]
    one, other = (sweep.folder(tmp_path, run) for run in runs[1:3])
    (one / "results.json").write_text((other / "results.json").read_text())
    with pytest.raises(ValueError, match="is of another run, with seed|with c|with mu"):
        sweep.is_done(tmp_path, runs[1])


def test_the_error_file_is_utf_8_whatever_the_locale(tmp_path, program, monkeypatch):
    Path(program[1]).write_text(
        "import sys\nsys.exit('wrong: \u00e9 \u2603')\n", "utf-8"
    )
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONCOERCECLOCALE", "0")
    monkeypatch.setenv("PYTHONUTF8", "0")
    before = locale.setlocale(locale.LC_CTYPE)
    runs = sweep.grid(AXES)[:1]
    try:
        locale.setlocale(locale.LC_CTYPE, "C")
        sweep.carry_out(tmp_path, runs, ["--note=\u2603"], program)
    finally:
        locale.setlocale(locale.LC_CTYPE, before)
    (error,) = tmp_path.glob("*.error.txt")
    first, *rest = error.read_text("utf-8").splitlines()
    assert "--note=\u2603" in first and rest[0] == "wrong: \u00e9 \u2603"


def sweep_until_ended(folder, program):
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
    sweep.carry_out(folder, sweep.grid(AXES), [], program)


def has_ended(pid):
    """A zombie has: nobody may be there to take note of it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")")[-1].split()[0] == "Z"
    except OSError:
        return True


def wait_until(reached):
    deadline = time.monotonic() + 30
    while not reached() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert reached()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_sweep_that_is_ended_ends_its_run(how, tmp_path, program):
    """Killed outright too, when it has no time to say anything to its run."""
    Path(program[1]).write_text(
        "import os, pathlib, time\n"
        "folder = pathlib.Path(__file__).parent\n"
        "(folder / 'aside').write_text(str(os.getpid()))\n"
        "(folder / 'aside').rename(folder / 'begun')\n"
        "time.sleep(60)\n"
    )
    context = multiprocessing.get_context("fork")
    arguments = (tmp_path / "sweep", program)
    process = context.Process(target=sweep_until_ended, args=arguments)
    process.start()
    wait_until((tmp_path / "begun").exists)
    run = int((tmp_path / "begun").read_text())
    assert not has_ended(run)
    os.kill(process.pid, how)
    process.join(20)
    assert process.exitcode == (3 if how == signal.SIGTERM else -signal.SIGKILL)
    wait_until(lambda: has_ended(run))


def test_rows_and_summary(tmp_path, program):
    runs = sweep.grid({**AXES, "criterion": ["x"]})
    sweep.carry_out(tmp_path / "sweep", runs[:-1], [], program)
    rows = sweep.rows(tmp_path / "sweep", runs)
    assert [row["final_accuracy"] for row in rows] == [0.5, 0.6, 0.5]
    first, second = sweep.summary(rows)
    assert (first["model"], first["seeds"], second["seeds"]) == ("a", 2, 1)
    assert first["final_accuracy_mean"] == pytest.approx(0.55)
    assert (first["final_accuracy_min"], first["final_accuracy_max"]) == (0.5, 0.6)
    assert first["emptied_layers_mean"] == 1 and first["kept_max"] == 7
    write_csv(tmp_path / "runs.csv", rows)
    with open(tmp_path / "runs.csv") as file:
        assert [row["seed"] for row in csv.DictReader(file)] == ["0", "1", "0"]


def test_damaged_results_are_named_before_anything_is_run(tmp_path, program):
    """Also where another number would be as likely, and those of another run."""
    runs = sweep.grid({**AXES, "criterion": ["x"]})
    sweep.carry_out(tmp_path / "sweep", runs[:2], [], program)
    first, second = (
        sweep.folder(tmp_path / "sweep", run) / "results.json" for run in runs[:2]
    )
    results = json.loads(second.read_text())
    write_json(second, results)
    assert sweep.is_done(tmp_path / "sweep", runs[1])
    second.write_text(second.read_text().replace("0.6", "0.7"))
    whole, calls = first.read_text(), list(tmp_path.rglob("calls"))
    write_json(first, results)
    for run, message in [
        (runs[0], f"{first}' holds results of another run, with seed=1, not 0"),
        (runs[1], f"{second}' is damaged, or was edited"),
    ]:
        with pytest.raises(ValueError, match=message):
            sweep.is_done(tmp_path / "sweep", run)
        with pytest.raises(ValueError, match=message):
            sweep.rows(tmp_path / "sweep", [run])
        with pytest.raises(ValueError, match=message):
            sweep.carry_out(tmp_path / "sweep", [run, *runs[2:]], [], program)
    assert list(tmp_path.rglob("calls")) == calls
    first.write_text(whole.replace("0.9,", "0.4,"))
    with pytest.raises(ValueError, match="the best is below the last"):
        sweep.rows(tmp_path / "sweep", runs)


def test_damaged_flags_of_a_sweep_are_named(tmp_path, program):
    runs = sweep.grid({axis: values[:1] for axis, values in AXES.items()})
    sweep.carry_out(tmp_path / "sweep", runs, ["--epochs=3"], program)
    (tmp_path / "sweep" / "flags.json").write_text("")
    with pytest.raises(ValueError, match="sweep/flags.json' is damaged"):
        sweep.carry_out(tmp_path / "sweep", runs, ["--epochs=3"], program)


def test_a_table_of_runs_is_compared_with_its_summary(tmp_path, program):
    runs = sweep.grid({**AXES, "criterion": ["x", "y"]})
    sweep.carry_out(tmp_path, runs, [], program)
    rows = sweep.rows(tmp_path, runs)
    path, beside = tmp_path / "runs.csv", tmp_path / "summary.csv"
    write_csv(path, rows)
    write_csv(beside, sweep.summary(rows))
    assert sweep.read_rows(tmp_path) == [
        {column: str(value) for column, value in row.items()} for row in rows
    ]
    whole, lines = path.read_text(), path.read_text().splitlines()
    assert len(lines) == 9
    for text, message in [
        (whole.replace("0.6", "0.7", 1), "contradict each other"),
        (whole.replace("y", "w", 1), "contradict each other"),
        ("\n".join(lines[:-1]) + "\n", "contradict each other"),
        ("", "contradict each other"),
        (whole[:-20], "row 8 is not whole"),
        (whole.replace("0.6", "", 1), "row 2 is not whole"),
        (whole.replace("0.6", "much", 1), "is damaged"),
        (whole.replace("seed", "sead", 1), "is damaged"),
    ]:
        path.write_text(text)
        with pytest.raises(ValueError, match=f"{path}.*{message}.*sweep.py writes"):
            sweep.read_rows(tmp_path)
    path.write_text(whole)
    beside.write_text(beside.read_text()[:-9])
    with pytest.raises(ValueError, match="contradict each other"):
        sweep.read_rows(tmp_path)
    beside.unlink()
    assert len(sweep.read_rows(tmp_path)) == 8


def test_rows_of_filters_say_what_is_left_of_them(tmp_path, program):
    runs = sweep.grid({**AXES, "criterion": ["x"]})[:1]
    sweep.carry_out(tmp_path / "sweep", runs, [], program)
    path = sweep.folder(tmp_path / "sweep", runs[0]) / "results.json"
    results = json.loads(path.read_text())
    results["prune"]["filters"] = {"prunable": 8, "kept": 2}
    results["shrink"] = {"before": {"macs": 400}, "after": {"macs": 50}}
    path.write_text(json.dumps(results))
    (row,) = sweep.rows(tmp_path / "sweep", runs)
    assert (row["filters"], row["macs_left"], row["kept"]) == (2, 0.125, 7)


def test_the_script_trains_and_sums_up(tmp_path):
    folder = tmp_path / "sweep"
    command = ["sweep", f"--sweepdir={folder}", "--criteria=magnitude"]
    command += ["--ratios=10,1e6"]
    more = ["--", "--epochs=1", "--batch_size=128", "--train_images=128"]
    dry, real = answers([[*command, "--dry_run"], [*command, *more]])
    assert dry[0].splitlines() == [
        "2 runs, 0 of them done already",
        str(folder / "resnet20-digits-magnitude-10-0"),
        str(folder / "resnet20-digits-magnitude-1e6-0"),
    ]
    # What fails is noted, and does not stop the rest; the table has what went well.
    assert real[0].startswith("2 runs, 0 of them done already"), real
    assert real[1].endswith("exit True\n")
    (error,) = folder.glob("*.error.txt")
    assert "the highest ratio that can keep" in error.read_text()
    with open(folder / "summary.csv") as file:
        table = list(csv.DictReader(file))
    assert [row["ratio"] for row in table] == ["10"]
    assert {row["kept_mean"] for row in table} == {"27090"}
