"""The same as `tf-synflow directional`; see tf_synflow/commands/directional.py."""

from tf_synflow.commands import run

run("directional")
