"""Gradients and Hessian-gradient products of the loss."""
