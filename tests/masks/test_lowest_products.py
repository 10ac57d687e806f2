import numpy as np
import pytest

from tf_synflow.masks import lowest_products as ranking


def pairs_of(rng, sizes, zeros):
    pairs = []
    for size in sizes:
        gradient, weight = rng.random(size), rng.random(size)
        weight[rng.random(size) < zeros] = 0
        gradient[rng.random(size) < 0.02] = 0
        pairs.append((gradient, weight))
    return pairs


def by_sorting(pairs, count):
    """The positions of the lowest products > 0, of equal ones the later first."""
    entries = [
        (value, -number, -place)
        for number, (gradient, weight) in enumerate(pairs)
        for place, value in enumerate(gradient * weight)
        if value > 0
    ]
    taken = sorted(entries)[:count]
    return [
        sorted(-place for _, n, place in taken if -n == number)
        for number in range(len(pairs))
    ]


@pytest.mark.parametrize("zeros", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_the_lowest_are_those_of_a_sort_whatever_the_bound(zeros, ties, share):
    rng = np.random.default_rng(3)
    # More than one block and more than one task, and an empty one.
    pairs = pairs_of(rng, (1000, 70_001, 0, 3), zeros)
    if ties:
        pairs = [(np.ceil(4 * gradient), np.ceil(weight)) for gradient, weight in pairs]
    positive = sum(int((gradient * weight > 0).sum()) for gradient, weight in pairs)
    count = int(share * positive)
    expected = by_sorting(pairs, count)
    lower, upper = ranking.guess_bounds(pairs, share)
    assert 0 <= lower <= upper
    for bound in (0.0, upper, np.inf):
        found = ranking.products_up_to(pairs, bound)
        # A lower bound that is far too high is a bad guess too.
        for guess in (0.0, lower, 2.0, np.inf):
            lowest = ranking.lowest(pairs, found, count, guess)
            for own, wanted in zip(lowest, expected, strict=True):
                assert own.tolist() == wanted


def test_tasks_and_blocks_meet_without_a_seam():
    size = ranking._TASK + ranking._BLOCK + 7
    weight = np.ones(size)
    gradient = np.arange(1.0, size + 1)
    gradient[[0, ranking._BLOCK, ranking._TASK, size - 1]] = 0
    found = ranking.products_up_to([(gradient, weight)], 2.0 * ranking._TASK)
    lost = [0, ranking._BLOCK, ranking._TASK, size - 1]
    assert found.lost[0].tolist() == lost
    expected = np.setdiff1d(np.arange(size), lost)
    np.testing.assert_array_equal(found.positions[0], expected)
    np.testing.assert_array_equal(found.values[0], expected + 1.0)


def test_what_is_lost_is_a_weight_without_a_product():
    rng = np.random.default_rng(5)
    pairs = pairs_of(rng, (5000, 200), 0.3)
    for (gradient, weight), lost in zip(
        pairs, ranking.products_up_to(pairs, 0.1).lost, strict=True
    ):
        expected = np.flatnonzero((weight > 0) & (gradient * weight == 0))
        np.testing.assert_array_equal(lost, expected)
