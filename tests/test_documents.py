"""README and pages: links, commands, code and names are those that there are."""

import ast
import re
from pathlib import Path

import pytest

import tf_synflow

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


def prose(text):
    return FENCE.sub("", text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text("utf-8")))
    for target in targets:
        place = target.partition("#")[0]
        if "://" in target or not place:
            continue
        if place.startswith("generated/tutorials/"):  # made of the program of that name
            place = place.replace("generated/", "") + ".py"
        assert (page.parent / place).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_programs_and_flag_files_are_there(page):
    text = page.read_text("utf-8")
    named = re.findall(
        r"\b(?:scripts|configs|docs|tests)/[\w/]+\.(?:py|flags|md)", text
    )
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_is_python(page):
    for indent, language, code in FENCE.findall(page.read_text("utf-8")):
        if language == "python":
            ast.parse(re.sub(f"^{indent}", "", code, flags=re.MULTILINE))


def test_the_readme_is_short_and_has_both_commands_in_one_line_each():
    lines = (ROOT / "README.md").read_text("utf-8").splitlines()
    assert len(lines) <= 150
    begin = "python3 -m venv .venv && .venv/bin/pip install -e '.["
    commands = [line for line in lines if line.startswith(begin)]
    assert len(commands) == 2
    assert "scripts/train.py --flagfile=configs/quickstart.flags" in commands[0]
    assert "python -m pytest" in commands[1]


def test_every_page_is_in_the_table_of_contents():
    index = (ROOT / "docs" / "index.md").read_text("utf-8")
    trees = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    listed = {line.strip() for tree in trees for line in tree.splitlines()}
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert pages <= listed


def test_every_public_name_is_on_the_page_of_the_api():
    page = (ROOT / "docs" / "api.md").read_text("utf-8")
    documented = set(re.findall(r"auto\w+:: tf_synflow\.(?:pruning\.)?(\w+)", page))
    assert documented == set(tf_synflow.__all__)


def test_a_measured_table_is_on_one_page_only():
    """A row of five numbers or more is a measurement."""
    places = {}
    for page in PAGES:
        for line in page.read_text("utf-8").splitlines():
            numbers = re.findall(r"\d[\d.,]*\d", line)
            if line.startswith("|") and len(numbers) >= 5:
                places.setdefault(line, set()).add(page.name)
    assert {line: where for line, where in places.items() if len(where) > 1} == {}
