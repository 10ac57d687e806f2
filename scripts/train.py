"""The same as `tf-synflow train`; see tf_synflow/commands/train.py."""

from tf_synflow.commands import run

run("train")
