"""Masks of an exact size from scores: plain numpy in, plain numpy out.

A mask is a boolean array of its weight's shape, True where the weight is kept. Masks
and scores travel as dictionaries by weight name, whose order is the order of the model:
the "position" by which equal scores are ranked is the place in that order, then the
place in the array in C order.
"""
