"""The programs in the documentation run as they stand, with less training."""

import re
from pathlib import Path

import keras
import pytest

DOCS = Path(__file__).parents[1] / "docs"


def programs(name):
    """The Python programs of a page."""
    return re.findall(r"```python\n(.*?)```", (DOCS / name).read_text("utf-8"), re.S)


@pytest.mark.parametrize("number", [0, 1])
def test_the_page_on_transformers(number, tmp_path, monkeypatch, capsys):
    keras.utils.clear_session()  # or layers get numbers after their names
    monkeypatch.chdir(tmp_path)
    program = programs("transformers.md")[number]
    short = re.sub(r"epochs=\d+", "epochs=2", program)
    assert short != program
    exec(compile(short, f"program {number}", "exec"), {"__name__": "program"})
    said = capsys.readouterr().out
    accuracy = float(re.search(r"test accuracy ([\d.]+)", said)[1])
    assert accuracy > (0.15 if number == 0 else 0.6)
    named = ["multi_head_attention/query/kernel", "lstm_cell/recurrent_kernel"]
    assert named[number] in said
