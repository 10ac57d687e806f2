"""The same as `tf-synflow sweep`; see tf_synflow/commands/sweep.py."""

from tf_synflow.commands import run

run("sweep")
