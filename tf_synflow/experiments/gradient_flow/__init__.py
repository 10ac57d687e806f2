"""What pruning does to a network's training: the gradient flow framework, measured.

`measure` prunes networks by all criteria at several epochs and ratios and gives tables,
`bench` is the network that it prunes and trains, `identities` holds the framework's two
equations against a gradient flow, and `figure` draws all of it.

References:
  Lubana, Dick. A gradient flow framework for analyzing network pruning. ICLR 2021.
  arXiv 2009.11839.
"""
