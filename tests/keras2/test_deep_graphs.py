"""Python's limit of recursion, which all threads share."""

import sys
import threading

import pytest

from tf_synflow.network.copies import deep_graphs


def dive(depth):
    """Recurses so deep, as Keras does through so many layers."""
    return depth and 1 + dive(depth - 1)


def test_two_threads_have_the_limit_as_long_as_they_need_it():
    """The first leaves while the second is inside: it must neither lower nor keep."""
    usual, found = sys.getrecursionlimit(), []
    inside, left = threading.Event(), threading.Event()

    def second():
        with deep_graphs(2 * usual):
            inside.set()
            left.wait(20)
            found.append(dive(2 * usual))

    thread = threading.Thread(target=second)
    with deep_graphs(3 * usual):
        thread.start()
        assert inside.wait(20)
        assert dive(3 * usual) == 3 * usual
    assert usual < sys.getrecursionlimit() < 3 * usual
    left.set()
    thread.join()
    assert found == [2 * usual]
    assert sys.getrecursionlimit() == usual
    with pytest.raises(RecursionError):
        dive(2 * usual)


def test_a_model_of_a_usual_size_leaves_the_limit_as_it_is():
    usual = sys.getrecursionlimit()
    with deep_graphs(usual - 700):
        assert sys.getrecursionlimit() == usual
    with pytest.raises(KeyError), deep_graphs(usual):
        assert sys.getrecursionlimit() > usual
        raise KeyError
    assert sys.getrecursionlimit() == usual
