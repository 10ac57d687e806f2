"""Functions for users: pruning, rewinding, filter rounds, callbacks, ablations."""
