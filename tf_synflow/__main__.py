"""`python -m tf_synflow COMMAND`: the same programs as `tf-synflow COMMAND`."""

from tf_synflow.commands import main

main()
