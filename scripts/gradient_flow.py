"""The same as `tf-synflow gradient_flow`; see tf_synflow/commands/gradient_flow.py."""

from tf_synflow.commands import run

run("gradient_flow")
