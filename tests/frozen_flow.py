"""An oracle for the flow through attention and recurrent layers, in plain NumPy.

It shares no code with the library, which it compares with only. A network is written
down as a function of its |weights|, with the parts frozen that a scoring freezes. A
weight's score is then what the flow loses when the weight is removed.
"""

import math

import numpy as np

import tf_synflow
from tf_synflow import frameworks

POLICY = tf_synflow.PruningPolicy(progress=False)


class Frozen:
    """Keeps the first value that it is given under a key, and gives it ever after."""

    def __init__(self):
        self.kept = {}

    def __call__(self, key, value):
        return self.kept.setdefault(key, np.copy(value))


def removal(flow, weights):
    """The flow, and for each weight what it loses when that one is removed.

    Args:
      flow: A function `(|weights|, frozen) -> R`.
      weights: Name to array.
    """
    sizes = {name: np.abs(w.astype("float64")) for name, w in weights.items()}
    frozen = Frozen()
    whole = flow(sizes, frozen)
    lost = {name: np.zeros(w.shape) for name, w in sizes.items()}
    for name, weight in sizes.items():
        for index in np.ndindex(weight.shape):
            before, weight[index] = weight[index], 0
            lost[name][index] = whole - flow(sizes, frozen)
            weight[index] = before
    return whole, lost


def scored(model):
    """Scores, and the values of all weights by the names of the scores."""
    network = frameworks.read(model)
    values = {name: v.numpy() for name, v in network.weights.items()}
    return POLICY.score(model), values


def compare(model, flow):
    """The scores of a model against the removal of each weight, to 1e-14 R."""
    scores, values = scored(model)
    others = {n: np.abs(v.astype("float64")) for n, v in values.items()}
    weights = {n: values[n] for n in scores}
    assert set(scores) == set(frameworks.read(model).prunable)
    whole, lost = removal(lambda w, f: flow({**others, **w}, f), weights)
    for name, score in scores.items():
        assert np.abs(score - lost[name]).max() <= 1e-14 * whole, name
    return whole, scores


def attend(w, frozen, name, query, value, key=None, sees=None, axes=(0,)):
    """MultiHeadAttention of signals without a batch axis.

    Args:
      w: Name to |weight|.
      frozen: A `Frozen`.
      name: The layer's.
      query: Array `(..., features)`; `value` and `key` likewise.
      value: See above.
      key: See above; the value, if it is not given.
      sees: Array (queries, keys), 1 where a token sees another; for one axis.
      axes: The axes of the tokens.
    """
    key = value if key is None else key
    kernels = [w[f"{name}/{part}/kernel"] for part in ("query", "key", "value")]
    v = np.einsum("...d,dhc->...hc", value, kernels[2])
    if sees is not None:
        share = sees / sees.sum(1, keepdims=True)
        mean = np.einsum("ts,shc->thc", share, v)
    else:
        mean = np.broadcast_to(
            v.mean(axes, keepdims=True), (*query.shape[:-1], *v.shape[-2:])
        )
    everything = tuple(range(query.ndim - 1))
    x_q = frozen(f"{name} q", query.mean(everything))
    x_k = frozen(f"{name} k", key.mean(everything))
    q, k = x_q @ kernels[0].transpose(1, 0, 2), x_k @ kernels[1].transpose(1, 0, 2)
    times = q.shape[0] // k.shape[0]  # query heads for each key head
    product = (q * np.repeat(k, times, 0)).sum(1)
    whole = frozen(f"{name} r", product)
    rho = np.array([p / r if r else 1.0 for p, r in zip(product, whole, strict=True)])
    y = np.repeat(mean, times, -2) * rho[:, None]
    if f"{name}/gate/kernel" in w:
        y = y + np.einsum("...d,dhc->...hc", query, w[f"{name}/gate/kernel"])
    out = w[f"{name}/attention_output/kernel"]
    return np.tensordot(y, out, 2)


def recur(w, frozen, name, x, gates, key=None):
    """The output at each step of a recurrent layer; `x` is (steps, features)."""
    kernel, recurrent = w[f"{name}/kernel"], w[f"{name}/recurrent_kernel"]
    units = recurrent.shape[0]
    a = np.stack([step @ kernel for step in x])
    z = sum(a[:, g * units : (g + 1) * units] for g in range(gates)).mean(0)
    u = frozen(f"{name} z", z) @ recurrent
    whole = frozen(f"{name} u", u)
    share = np.array([p / q if q else 1.0 for p, q in zip(u, whole, strict=True)])
    a = a * share
    y = sum(a[:, g * units : (g + 1) * units] for g in range(gates))
    return np.stack([y[: t + 1].mean(0) for t in range(len(y))])


def paths(w, name, tokens, upstream, sees):
    """Every path through self-attention, as (product, weights on the way).

    A path goes from a feature of a token that is seen through the value and the output
    kernel of a head. With it goes one of the products of a query and a key weight of
    that head, at the mean of the tokens, over the sum of these products.

    Args:
      w: Name to |weight|.
      name: The layer's.
      tokens: Array (tokens, features), the signal.
      upstream: Function (token, feature) -> its paths.
      sees: Array (tokens, tokens), 1 where a token sees another.

    Returns:
      Function (token, output feature) -> list of paths.
    """
    kernels = {
        part: w[f"{name}/{part}/kernel"]
        for part in ("query", "key", "value", "attention_output")
    }
    features, heads, units = kernels["query"].shape
    mean = tokens.mean(0)

    def products(h):
        for d in range(units):
            for a in range(features):
                for b in range(features):
                    q, k = kernels["query"][a, h, d], kernels["key"][b, h, d]
                    used = ((f"{name}/query/kernel", (a, h, d)),)
                    used += ((f"{name}/key/kernel", (b, h, d)),)
                    yield mean[a] * q * k * mean[b], used

    shares = [list(products(h)) for h in range(heads)]
    totals = [math.fsum(p for p, _ in own) for own in shares]

    def through(token, e):
        found = []
        seen = np.flatnonzero(sees[token])
        for s in seen:
            for i in range(features):
                for h in range(heads):
                    for c in range(kernels["value"].shape[2]):
                        v = kernels["value"][i, h, c]
                        o = kernels["attention_output"][h, c, e]
                        used = ((f"{name}/value/kernel", (i, h, c)),)
                        used += ((f"{name}/attention_output/kernel", (h, c, e)),)
                        for product, before in upstream(s, i):
                            for share, pair in shares[h]:
                                part = product * v * o * share / totals[h] / len(seen)
                                found.append((part, before + used + pair))
        return found

    return through


def scores_of(found, weights):
    """The sum over all paths through each weight, and over all paths."""
    terms = {}
    for product, used in found:
        for name, index in used:
            terms.setdefault((name, index), []).append(product)
    scores = {name: np.zeros(w.shape) for name, w in weights.items()}
    for (name, index), own in terms.items():
        scores[name][index] = math.fsum(own)
    return math.fsum(product for product, _ in found), scores
