"""Linear parts as ordinary functions of tensors, by what a layer does.

Each linear part is a function `(layer, inputs, weights) -> outputs`. The module
`linear_parts` explains the arguments, and says which layer has which linear part.
"""
