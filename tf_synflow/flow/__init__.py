"""SynFlow's engine: the linear twin, its rules, and the loop."""
