"""The same as `tf-synflow prune`; see tf_synflow/commands/prune.py."""

from tf_synflow.commands import run

run("prune")
