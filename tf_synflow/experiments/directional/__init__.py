"""Compares GRDA's solution with SGD's, and with SGD's solution pruned by magnitude.

`flat` sees a network as a function of one vector of weights. `solutions` trains, and
prunes by magnitude. `paths` and `curvature` measure what lies between two solutions.
`study` puts the tables together, and `figure` draws them.

References:
  Chao, Wang, Xing, Cheng. Directional pruning of deep neural networks. NeurIPS 2020.
  arXiv 2006.09358.
"""
