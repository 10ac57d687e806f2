"""Experiments: single runs, sweeps, and the figures of the papers."""
