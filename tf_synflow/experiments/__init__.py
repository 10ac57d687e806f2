"""Runs: train, sweep, figures of the papers."""
