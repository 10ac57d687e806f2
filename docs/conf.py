"""Settings of the documentation site.

pip install -e '.[docs]'
python -m sphinx -W --keep-going -b html docs build/docs
python docs/check_pages.py build/docs
"""

import os
import re
import sys
from pathlib import Path

# Before the tutorials import TensorFlow and Keras.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import tf_synflow  # noqa: E402

project = "tf_synflow"
author = "the tf_synflow authors"
copyright = "the tf_synflow authors, Apache-2.0"
release = version = tf_synflow.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
    "sphinx_gallery.gen_gallery",
    "mathml",
]
exclude_patterns = ["published", "sweeps", "tutorials", "_ext", "Thumbs.db"]

html_theme = "furo"
html_title = f"tf_synflow {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sourcelink = False
# Furo's own pages fetch nothing from outside; this keeps it so.
html_theme_options = {"top_of_page_buttons": []}

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist", "attrs_inline"]
myst_heading_anchors = 3

# `name` in a docstring links to what it names, if that has a page, and is code.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "generated/tutorials",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "only_warn_on_example_error": False,
    "download_all_examples": False,
    "show_memory": False,
    "capture_repr": (),
    "write_computation_times": False,
    "show_signature": False,
    "min_reported_time": 10**6,
    "copyfile_regex": r"",
    "remove_config_comments": True,
}
copybutton_exclude = ".linenos, .gp, .go"

_FENCE = re.compile(r"^(\s*)```(\w*)\s*$")
_SECTION = re.compile(r"^[A-Z][a-z]+:$")


def _as_sphinx_reads(app, what, name, obj, options, lines: list[str]) -> None:
    """Docstrings are written for people: code between ```, formulas indented."""
    found: list[str] = []
    fence: str | None = None
    in_text, formula = True, False  # before the first section; in an indented formula
    for line in lines:
        marks = _FENCE.match(line)
        in_text = in_text and not _SECTION.match(line)
        if marks:
            opens = fence is None
            fence = marks[1] if opens else None
            text = [f"{fence}.. code-block:: {marks[2] or 'text'}", ""]
            found += text if opens else [""]
        elif fence is not None:
            found.append(f"    {line}" if line else "")
        else:
            indented = in_text and line.startswith("    ")
            if indented and not formula and found and not found[-1]:
                found += ["::", ""]
            formula = indented or (formula and not line)
            found.append(line if indented else _escaped(line))
    lines[:] = found


def _escaped(line: str) -> str:
    """A line in which | and * outside of backticks are themselves."""
    parts = line.split("`")
    parts[::2] = [re.sub(r"\||(?<!\*)\*(?!\*)", r"\\\g<0>", p) for p in parts[::2]]
    return "`".join(parts)


def setup(app) -> None:
    """Connects what the settings cannot say."""
    # Before napoleon, which reads the sections.
    app.connect("autodoc-process-docstring", _as_sphinx_reads, priority=100)
