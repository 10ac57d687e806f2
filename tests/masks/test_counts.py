import math
import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_synflow.masks import counts as lib
from tf_synflow.masks.selection import iterate, keep_highest


def exactly_kept(size, ratio):
    """The pinned count, in decimal arithmetic that shares nothing with the library."""
    exact = Decimal(repr(ratio))
    if exact < 1:
        return size - int((exact * size).to_integral_value("ROUND_FLOOR"))
    # floor((1 - 1/r) N) with r = p/q is (p - q) N // p in whole numbers.
    p, q = exact.as_integer_ratio()
    return size - (p - q) * size // p


def test_kept_counts_are_exact_for_a_thousand_random_sizes_and_ratios():
    rng = np.random.default_rng(0)
    for _ in range(1000):
        size = int(10 ** rng.uniform(0, 8))
        ratio = float(rng.choice([rng.uniform(0, 1), 10 ** rng.uniform(0, 6)]))
        if rng.random() < 0.5:
            ratio = round(ratio, 2)
        assert lib.kept_count(size, ratio) == exactly_kept(size, ratio), (size, ratio)


def test_the_ratio_is_read_as_the_decimal_it_was_written_as():
    assert lib.kept_count(1_000_000, 0.99) == 10_000
    assert lib.kept_count(1_000_000, np.float32(0.99)) == 10_000
    assert lib.kept_count(1_000_000, 100) == lib.kept_count(1_000_000, 0.99)
    # In binary floats (1 - 1/3) * 3 is 2.0000000000000004, and 0.7 * 10 is 7.000...01.
    assert lib.kept_count(3, 3) == 1
    assert lib.kept_count(10, 0.7) == 3
    assert lib.kept_count(7, Fraction(1, 7)) == 6
    assert lib.kept_count(10, 10**400) == 1
    assert lib.kept_count(10, 1) == lib.kept_count(10, 0) == 10


@pytest.mark.parametrize("ratio", [float("nan"), float("inf"), -1, -0.1, -float("inf")])
def test_a_ratio_that_means_nothing_is_refused(ratio):
    with pytest.raises(ValueError, match="ratio must be finite and not negative, got"):
        lib.kept_count(10, ratio)


@pytest.mark.parametrize("ratio", ["10", None, True, [10]])
def test_a_ratio_that_is_no_number_is_refused(ratio):
    with pytest.raises(TypeError, match="ratio must be a number, got"):
        lib.kept_count(10, ratio)


@settings(max_examples=300, deadline=None)
@given(st.integers(2, 10**8), st.data())
def test_the_highest_and_lowest_ratios_are_so_to_the_sixth_place(size, data):
    kept = data.draw(st.integers(2, size))
    highest, lowest = lib.highest_ratio(size, kept), lib.lowest_ratio(size, kept)

    def next_to(ratio, steps):
        return float(Decimal(repr(ratio)) + steps * Decimal("0.000001"))

    assert exactly_kept(size, highest) >= kept
    assert exactly_kept(size, next_to(highest, 1)) < kept
    assert exactly_kept(size, lowest) <= kept
    if lowest > 1:
        assert exactly_kept(size, next_to(lowest, -1)) > kept


def a_ratio_in(error, before):
    return float(re.search(before + " ([0-9.]+)", str(error.value))[1])


def test_the_ratio_that_an_error_calls_the_highest_is():
    """Of 176 weights in two tensors 88 keeps 2, and so does all below 176."""
    masks = {"a": np.ones(100, bool), "b": np.ones(76, bool)}
    with pytest.raises(ValueError, match="keeps 1 of 176") as error:
        lib.check_reach(masks, 176, "global")
    assert a_ratio_in(error, "weight in each is") == 175.999999
    for ratio in (88, 89, 175.999999):
        lib.check_reach(masks, ratio, "global")


def test_a_local_ranking_keeps_one_of_each_whatever_the_ratio():
    masks = {"a": np.ones(100, bool), "b": np.ones(76, bool)}
    lib.check_reach(masks, 10_000, "local")
    (step,) = lib.plan(masks, 10_000, 1, "linear", "local")
    assert step == [(["a"], 1), (["b"], 1)]


def test_the_ratio_that_an_error_calls_enough_is_enough_for_every_weight():
    """a has 30 of 100 left, b 10 of 76; 100 / 30 is too little for b."""
    masks = {"a": np.arange(100) < 30, "b": np.arange(76) < 10}
    with pytest.raises(ValueError, match="weight 'a' is pruned to 30") as error:
        lib.check_reach(masks, 2, "local")
    assert a_ratio_in(error, "a ratio of at least") == 7.6
    lib.check_reach(masks, 7.6, "local")
    with pytest.raises(ValueError, match="weight 'b' is pruned to 10"):
        lib.check_reach(masks, 7.599999, "local")
    with pytest.raises(ValueError, match="the model is pruned to 40") as error:
        lib.check_reach(masks, 2, "global")
    assert a_ratio_in(error, "a ratio of at least") == 4.4
    lib.check_reach(masks, 4.4, "global")


@pytest.mark.parametrize("scope", ["global", "local"])
def test_where_nothing_is_left_no_ratio_is_offered(scope):
    with pytest.raises(ValueError, match="prune the original model$"):
        lib.check_reach({"a": np.zeros(9, bool)}, 2, scope)


def brute_force(scores, mask, kept):
    """Sorts survivors by (score, later position) and removes from the bottom."""
    order = sorted(np.flatnonzero(mask), key=lambda i: (scores[i], -i))
    new = mask.copy()
    new[order[: len(order) - kept]] = False
    return new


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_keep_highest_equals_a_sort_with_ties_by_position(data):
    size = data.draw(st.integers(1, 40))
    values = st.sampled_from([0.0, 1.0, 1.0, 2.5, -3.0])
    scores = np.array(data.draw(st.lists(values, min_size=size, max_size=size)))
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=size, max_size=size)))
    kept = data.draw(st.integers(0, int(mask.sum())))
    new = keep_highest(scores, mask, kept)
    assert new.sum() == kept
    np.testing.assert_array_equal(new, brute_force(scores, mask, kept))


def some_masks(rng, shapes):
    return {f"l{i}/kernel": np.ones(s, bool) for i, s in enumerate(shapes)}


@pytest.mark.parametrize("scope", lib.SCOPES)
@pytest.mark.parametrize("schedule", lib.SCHEDULES)
@pytest.mark.parametrize("scores", ["distinct", "equal", "zero", "three values"])
def test_iterating_keeps_the_exact_count_and_nothing_comes_back(
    scope, schedule, scores
):
    rng = np.random.default_rng(1)
    masks = some_masks(rng, [(3, 3, 4, 8), (17,), (8, 25)])
    size = sum(mask.size for mask in masks.values())
    seen = [masks]

    def scorer(now):
        assert all((now[n] <= seen[-1][n]).all() for n in now)
        seen.append(now)
        make = {
            "distinct": lambda m: rng.standard_normal(m.shape) ** 2,
            "equal": lambda m: np.ones(m.shape),
            "zero": lambda m: np.zeros(m.shape),
            "three values": lambda m: rng.integers(0, 3, m.shape).astype(float),
        }[scores]
        return {n: make(m) * m for n, m in now.items()}

    steps = lib.plan(masks, 7.3, 9, schedule, scope)
    result = iterate(scorer, masks, steps)
    assert len(seen) == 10
    assert all((result[n] <= seen[-1][n]).all() for n in result)
    if scope == "global":
        assert sum(m.sum() for m in result.values()) == exactly_kept(size, 7.3)
    else:
        for mask in result.values():
            assert mask.sum() == exactly_kept(mask.size, 7.3)


def test_equal_scores_keep_the_earliest_positions():
    masks = {"a/kernel": np.ones((2, 3), bool), "b/kernel": np.ones(4, bool)}
    scores = {name: np.ones(mask.shape) for name, mask in masks.items()}
    new = iterate(lambda _: scores, masks, [[(list(masks), 4)]])
    np.testing.assert_array_equal(new["a/kernel"], [[1, 1, 1], [1, 0, 0]])
    assert not new["b/kernel"].any()


def test_schedules_by_hand():
    exponential = lib.densities(100, 2, "exponential")
    linear = lib.densities(100, 2, "linear")
    np.testing.assert_allclose(exponential, [0.1, 0.01], rtol=1e-15)
    np.testing.assert_allclose(linear, [0.505, 0.01], rtol=1e-15)
    # From a tenth on, to a hundredth: geometric mean half-way.
    half = lib.densities(100, 2, "exponential", start=0.1)
    np.testing.assert_allclose(half, [math.sqrt(0.001), 0.01], rtol=1e-12)


def test_counts_at_each_iteration_follow_algorithm_1():
    counts = lib.kept_counts(1000, 100, 4, "exponential", 1000)
    assert counts == [1000 - int((1 - 0.01 ** (k / 4)) * 1000) for k in (1, 2, 3)] + [
        10
    ]
