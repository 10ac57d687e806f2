"""Masks of an exact size from scores: plain numpy in, plain numpy out.

A mask is a boolean array of its weight's shape, True where the weight is kept. Masks
and scores are dictionaries by weight name, in the order of the model. Equal scores are
ranked by "position": by the place in that order first, then by the place in the array
in C order.
"""
