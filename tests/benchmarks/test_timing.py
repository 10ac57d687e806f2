import timing as benchmarking

from tf_synflow.masks.counts import kept_count


def test_a_measurement_says_what_was_pruned_and_makes_a_row():
    result = benchmarking.measure("resnet20", 32, 10, 10, iterations=3, repeats=1)
    assert result["prunable"] == 270_896
    assert result["kept"] == kept_count(270_896, 10)
    assert result["peak_gb"] > 0.1
    assert len(result["loop_seconds"]) == len(result["floor_seconds"]) == 1
    total = sum(result["stages"].values())
    assert 0 < total <= result["loop_seconds"][0]
    header, rule = benchmarking.HEADER.split("\n")
    row = benchmarking.row(result)
    assert header.count("|") == rule.count("|") == row.count("|")
    assert "270,896" in row
