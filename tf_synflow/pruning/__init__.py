"""What users call: prune, rewinding, filter rounds, callbacks, ablations."""
