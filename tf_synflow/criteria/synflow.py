"""SynFlow: the synaptic flow through each weight.

With R the flow of the linear twin, S(w) = dR/d|w| * |w|: the sum over all paths from
input to output through w of the product of the |weights| along the path. It needs no
data. In every layer of a feed-forward network the scores add up to R.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467, section 6.
"""

import numpy as np

from tf_synflow.criteria.problem import Problem
from tf_synflow.linear_twin import LinearTwin
from tf_synflow.masks import Masks, Scorer, Scores


def synflow(problem: Problem) -> Scorer:
    """Scores by synaptic flow; see the module for the equation."""
    twin = LinearTwin(problem.graph, problem.weights, problem.exclude)
    magnitudes = {n: np.abs(w.astype("float64")) for n, w in problem.weights.items()}

    def score(masks: Masks) -> Scores:
        kept = {name: w * masks[name] for name, w in magnitudes.items()}
        flow, gradients = twin.gradients(kept)
        if not np.isfinite(flow):
            raise FloatingPointError(f"the synaptic flow is {flow}: float64 overflowed")
        return {name: gradients[name] * w for name, w in kept.items()}

    return score
