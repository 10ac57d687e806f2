"""Measures what pruning does to a network's training, by the gradient flow framework.

`measure` prunes networks by all criteria at several epochs and ratios, and returns
tables. `bench` is the network that `measure` prunes and trains. `identities` compares
the framework's two equations with a gradient flow. `figure` draws the tables.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839.
"""
