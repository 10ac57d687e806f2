"""PruningPolicy, and the modules that it delegates to."""
