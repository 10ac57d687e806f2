"""The same as `tf-synflow report`; see tf_synflow/commands/report.py."""

from tf_synflow.commands import run

run("report")
