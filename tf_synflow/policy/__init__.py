"""PruningPolicy, and what it delegates to."""
