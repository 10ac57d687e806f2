"""The same as `tf-synflow figures`; see tf_synflow/commands/figures.py."""

from tf_synflow.commands import run

run("figures")
