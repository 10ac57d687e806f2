"""An oracle for synaptic flow: every path of a network, one by one.

It shares no code with the library and knows no derivative. A network is units joined by
edges; an edge carries a number and, if that number is a weight, the weight's name and
index. The score of a weight is the sum over all paths through it of the product of the
edges' absolute values.
"""

import itertools
import math

import numpy as np


class Units:
    """Builds a network unit by unit; signals are arrays of unit numbers."""

    def __init__(self, weights):
        self.weights = weights
        self.edges = []  # for each unit, what it reads: (unit, number, weight or None)

    def unit(self, edges):
        self.edges.append(edges)
        return len(self.edges) - 1

    def input(self, shape):
        return np.array([self.unit(None) for _ in range(math.prod(shape))]).reshape(
            shape
        )

    def edge(self, source, name, index):
        return source, abs(float(self.weights[name][index])), (name, index)

    def dense(self, x, name):
        inputs, outputs = self.weights[name].shape
        return np.array(
            [
                self.unit([self.edge(x[i], name, (i, j)) for i in range(inputs)])
                for j in range(outputs)
            ]
        )

    def windows(self, x, size, stride, padding):
        """For each output position, the taps inside the image: (row, column, a, b)."""
        height, width = x.shape[:2]
        if padding == "same":
            rows, columns = -(-height // stride), -(-width // stride)
            top = max((rows - 1) * stride + size - height, 0) // 2
            left = max((columns - 1) * stride + size - width, 0) // 2
        else:
            rows, columns = (height - size) // stride + 1, (width - size) // stride + 1
            top = left = 0
        grid = [[[] for _ in range(columns)] for _ in range(rows)]
        for r, c, a, b in itertools.product(
            range(rows), range(columns), range(size), range(size)
        ):
            y, z = r * stride + a - top, c * stride + b - left
            if 0 <= y < height and 0 <= z < width:
                grid[r][c].append((y, z, a, b))
        return grid

    def conv(self, x, name, stride=1, padding="same"):
        size, _, inputs, outputs = self.weights[name].shape
        return np.array(
            [
                [
                    [
                        self.unit(
                            [
                                self.edge(x[y, z, i], name, (a, b, i, o))
                                for y, z, a, b in taps
                                for i in range(inputs)
                            ]
                        )
                        for o in range(outputs)
                    ]
                    for taps in row
                ]
                for row in self.windows(x, size, stride, padding)
            ]
        )

    def scale(self, x, factors):
        each = np.broadcast_to(factors, x.shape)
        pairs = zip(x.ravel(), each.ravel(), strict=True)
        return np.array([self.unit([(u, f, None)]) for u, f in pairs]).reshape(x.shape)

    def add(self, x, y):
        pairs = zip(x.ravel(), y.ravel(), strict=True)
        sums = [self.unit([(u, 1.0, None), (v, 1.0, None)]) for u, v in pairs]
        return np.array(sums).reshape(x.shape)

    def average_pool(self, x, size):
        def unit(taps, c):
            return self.unit([(x[y, z, c], 1 / len(taps), None) for y, z, _, _ in taps])

        grid = self.windows(x, size, size, "valid")
        return np.array(
            [[[unit(t, c) for c in range(x.shape[2])] for t in row] for row in grid]
        )

    def max_pool(self, x, size):
        def unit(taps, c):
            sources = [x[y, z, c] for y, z, _, _ in taps]
            return self.unit([(max(sources, key=self.signal), 1.0, None)])

        grid = self.windows(x, size, size, "valid")
        return np.array(
            [[[unit(t, c) for c in range(x.shape[2])] for t in row] for row in grid]
        )

    def signal(self, unit):
        """The value at a unit when the inputs are ones."""
        edges = self.edges[unit]
        if edges is None:
            return 1.0
        return sum(number * self.signal(source) for source, number, _ in edges)

    def paths(self, unit):
        """Every path from the inputs to a unit, as (product, weights on the way)."""
        edges = self.edges[unit]
        if edges is None:
            yield 1.0, ()
            return
        for source, number, weight in edges:
            if number:
                own = () if weight is None else (weight,)
                for product, weights in self.paths(source):
                    yield product * number, weights + own

    def scores(self, outputs):
        terms = {n: np.empty(w.shape, object) for n, w in self.weights.items()}
        for array in terms.values():
            for index in np.ndindex(array.shape):
                array[index] = []
        for output in np.ravel(outputs):
            for product, weights in self.paths(output):
                # A shared weight that is met twice counts twice: d(w^2)/dw w = 2 w^2.
                for name, index in weights:
                    terms[name][index].append(product)
        return {
            n: np.array([math.fsum(t) for t in array.ravel()]).reshape(array.shape)
            for n, array in terms.items()
        }
