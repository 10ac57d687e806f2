"""Layer collapse: nothing is left of a layer, while other layers still have weights.

References:
  Tanaka, Kunin, Yamins, Ganguli. Pruning neural networks without any data by
  iteratively conserving synaptic flow. NeurIPS 2020. arXiv 2006.05467, section 3.
"""

import warnings

from tf_synflow.checks import LayerCollapseError, LayerCollapseWarning
from tf_synflow.criteria import Problem
from tf_synflow.flow.paths import on_paths
from tf_synflow.masks.selection import emptied
from tf_synflow.masks.types import Masks

ACTIONS = ("warn", "raise", "ignore")


def notice(
    problem: Problem, before: Masks, after: Masks, on_collapse: str, advice: str
) -> None:
    """Warns or raises if pruning has emptied a layer.

    Args:
      problem: The network.
      before: Name to mask before pruning. A layer that was empty then is not mentioned
        again.
      after: Name to mask after pruning.
      on_collapse: One of `ACTIONS`.
      advice: What to do if input and output are not connected any more.

    Raises:
      LayerCollapseError: A layer was emptied, and `on_collapse` is "raise".
    """
    names = [name for name in emptied(after) if before[name].any()]
    if not names or on_collapse == "ignore":
        return
    zero = [name for name in names if not problem.weights[name][before[name]].any()]
    if zero:
        advice = (
            f"the values of {', '.join(zero)} were all 0 before pruning, so that no "
            "path led through there then either: give them other values before you "
            f"prune; otherwise {advice}"
        )
    try:
        connected = on_paths(problem.network, after, problem.exclude)[1]
    except ValueError:
        what = "whether input and output are still connected is not known"
    else:
        end = "output" if len(problem.network.outputs) == 1 else "one of the outputs"
        what = (
            "side branches: input and output are still connected through other layers"
            if connected
            else f"no path is left from input to {end}, so the network cannot learn; "
            + advice
        )
    message = f"pruning has left nothing of {', '.join(names)}: {what}"
    if on_collapse == "raise":
        raise LayerCollapseError(message)
    warnings.warn(message, LayerCollapseWarning, stacklevel=4)
