"""How many filters are left after R rounds, beside what the formula says.

python scripts/benchmarks/filter_counts.py --models=mobilenet --rounds=1,5

Networks are new and are not trained between the rounds: only the counts matter here.
They are pruned by magnitude; in ResNets, filters that are added are zeroed.
"""

import math
import time

from absl import app, flags

import tf_synflow
from tf_synflow import models
from tf_synflow.commands.plain_errors import in_one_line
from tf_synflow.frameworks import read
from tf_synflow.masks.counts import pruned_fraction
from tf_synflow.pruning.filter_rounds import Counting, in_rounds

_MODELS = flags.DEFINE_list(
    "models", ["vgg13_framework", "mobilenet", "resnet56"], "Networks."
)
_RATIOS = flags.DEFINE_list("ratios", ["0.75", "0.6"], "Shares to remove.")
_ROUNDS = flags.DEFINE_list("rounds", ["1", "5", "25"], "Numbers of rounds.")
_WHOLE_PERCENTS = flags.DEFINE_bool(
    "whole_percents", False, "Cut what is left down to whole percents."
)


def formula(filters: int, removed: float, rounds: int, percents: bool) -> int:
    """Gives the number of filters that the formula leaves after all rounds.

    Round k of R removes the share p_k = p / (k p + R (1 - p)) of the filters left.

    Args:
      filters: Number of filters before the first round.
      removed: p, the share to remove in all.
      rounds: R.
      percents: Whether the share that is left is rounded down to a whole percentage
        after each round.
    """
    left, removed = 1, pruned_fraction(removed)
    for k in range(1, rounds + 1):
        left *= 1 - removed / (k * removed + rounds * (1 - removed))
        if percents:
            left = pruned_fraction(math.floor(100 * left) / 100)
    return filters - math.floor((1 - left) * filters)


@in_one_line
def main(argv: list[str]) -> None:
    """Prints a row of a table for each network, ratio and number of rounds."""
    print("| network | removed | rounds | filters left | formula | seconds |")
    policy = tf_synflow.PruningPolicy("magnitude", granularity="filter", progress=False)
    for name in _MODELS.value:
        counting = Counting("resnet" in name, _WHOLE_PERCENTS.value)
        for ratio, rounds in (
            (float(r), int(n)) for r in _RATIOS.value for n in _ROUNDS.value
        ):
            start, model = time.perf_counter(), models.build(name, (32, 32, 3), 10)
            filters = counting.task(policy, read(model), None).filters
            _, masks = in_rounds(
                model, ratio, lambda _: None, rounds, policy, None, counting
            )
            left = sum(int(f.sum()) for f in filters.standing(masks).values())
            total = sum(filters.sizes.values())
            wanted = formula(total, ratio, rounds, counting.whole_percents)
            print(
                f"| {name} | {ratio:.0%} | {rounds} | {left:,} of {total:,} | "
                f"{wanted:,} | {time.perf_counter() - start:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    app.run(main)
