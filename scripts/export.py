"""The same as `tf-synflow export`; see tf_synflow/commands/export.py."""

from tf_synflow.commands import run

run("export")
