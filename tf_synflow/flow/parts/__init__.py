"""Linear parts as ordinary functions of tensors, by what a layer does.

Each is a function `(layer, inputs, weights) -> outputs`; `linear_parts` says what that
means, and which layer has which.
"""
