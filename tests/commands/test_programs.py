"""`tf-synflow COMMAND`: names of flag files, names of flags, and how one is called."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_synflow.commands import COMMANDS, as_flags
from tf_synflow.commands.flag_files import flag_file, with_named_flag_files

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.mark.parametrize(
    "name", ["quickstart", "quickstart.flags", "configs/quickstart.flags"]
)
def test_a_flag_file_is_found_by_name_from_any_folder(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(flag_file(name)).samefile(CONFIGS / "quickstart.flags")


def test_a_file_that_is_there_comes_before_the_library_s(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("quickstart").write_text("--ratio=7\n")
    assert flag_file("quickstart") == "quickstart"
    assert flag_file("nowhere/none") == "nowhere/none"


@pytest.mark.parametrize(
    "words", [["--flagfile=quickstart"], ["-flagfile", "quickstart"]]
)
def test_flag_files_are_named_in_either_way_of_writing_a_flag(words):
    found = with_named_flag_files(["tf-synflow train", *words, "--ratio=quickstart"])
    assert Path(found[-2].split("=")[-1]).samefile(CONFIGS / "quickstart.flags")
    assert (found[0], found[-1]) == ("tf-synflow train", "--ratio=quickstart")


@pytest.mark.parametrize(
    "message, said",
    [
        ("ratio=0.5: expected more", "--ratio=0.5: expected more"),
        ("pruning_ratio=2, ratio=1", "pruning_ratio=2, --ratio=1"),
        ("--ratio=2 and x.ratio=2", "--ratio=2 and x.ratio=2"),
        ("the ratio is 2", "the ratio is 2"),
    ],
)
def test_names_of_arguments_become_flags(message, said):
    assert as_flags(message, {"ratio"}) == said


def call(*words, folder):
    environment = {**os.environ, "PYTHONPATH": str(CONFIGS.parent)}
    return subprocess.run(
        [sys.executable, "-m", "tf_synflow", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )


def test_all_commands_are_listed_and_an_unknown_one_is_named(tmp_path):
    done = call(folder=tmp_path)
    assert done.returncode == 0
    assert all(f"\n  {name} " in done.stdout for name in COMMANDS)
    done = call("prun", folder=tmp_path)
    assert done.returncode == 1
    assert "there is no command 'prun'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_error_of_the_library_names_the_flag(tmp_path):
    done = call("report", "--model=none.keras", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("tf-synflow report: ")
    assert "none.keras" in done.stderr and "Traceback" not in done.stderr
