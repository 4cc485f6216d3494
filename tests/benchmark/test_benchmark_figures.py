"""From runs to distributions, tables and ratios."""

import json

import pytest

from text_generation_benchmark.compare import Earlier
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.measurements import Distribution, measure
from text_generation_benchmark.percentiles import percentile
from text_generation_benchmark.plots import draw
from text_generation_benchmark.report import markdown
from text_generation_benchmark.scenario import Run

RUNS = [Run(0.010, (0.004, 0.006), 4), Run(0.030, (0.005, 0.005), 4)]
ONE = {"average": 2.0, "lowest": 1.0, "highest": 4.0, "p50": 2.0, "p90": 3.0, "p99": 3.9}


def results(*sizes, factor=1.0):
    scaled = {key: value * factor for key, value in ONE.items()}
    prefill = {"latency_ms": scaled, "tokens_per_second": ONE, "prompt_tokens_per_second": ONE}
    decode = {"step_latency_ms": scaled, "latency_ms": scaled, "tokens_per_second": ONE}
    return [{"batch_size": size, "prefill": prefill, "decode": decode} for size in sizes]


def written(path, found):
    path.write_text(json.dumps({"parameters": {"decode_length": 8, "runs": 3}, "results": found}))
    return Earlier.read(path)


def test_percentiles_lie_between_the_nearest_samples():
    assert [percentile([1.0, 2.0, 3.0, 4.0, 5.0], p) for p in (0, 25, 50, 90, 100)] == [1.0, 2.0, 3.0, 4.6, 5.0]
    assert percentile([7.0], 99) == 7.0


def test_a_distribution_does_not_depend_on_order():
    expected = Distribution(average=2.0, lowest=1.0, highest=3.0, p50=2.0, p90=2.8, p99=2.98)
    assert Distribution.of([3.0, 1.0, 2.0]) == expected


def test_figures_of_runs():
    found = measure(2, 5, RUNS)
    assert found.prefill.latency_ms.average == pytest.approx(20)
    assert found.prefill.tokens_per_second.highest == pytest.approx(2 / 0.010)
    assert found.prefill.prompt_tokens_per_second.lowest == pytest.approx(10 / 0.030)
    assert (found.decode.step_latency_ms.lowest, found.decode.step_latency_ms.highest) == pytest.approx((4, 6))
    assert found.decode.latency_ms.p50 == pytest.approx(10)
    assert found.decode.tokens_per_second.average == pytest.approx(4 / 0.010)


def test_tables_have_a_row_for_each_batch_size():
    text = markdown(
        {"parameters": {"runs": 2, "batch_sizes": (1, 8)}, "shard": {"dtype": "x"}, "results": results(1, 8)}
    )
    lines = [" ".join(line.split()) for line in text.splitlines()]
    assert "| shard: dtype | x |" in lines
    assert "| batch sizes | 1, 8 |" in lines
    assert "| Batch | Average | Lowest | Highest | p50 | p90 | p99 | tokens/s | prompt tokens/s |" in lines
    assert lines.count("| 8 | 2.00 | 1.00 | 4.00 | 2.00 | 3.00 | 3.90 | 2.0 | 2.0 |") == 1
    assert lines.count("| 8 | 2.00 | 1.00 | 4.00 | 2.00 | 3.00 | 3.90 | 2.0 |") == 2


def test_ratios_are_of_the_batch_sizes_that_both_have(directory):
    earlier = written(directory / "other.json", results(1, 2))
    assert earlier.differences({"decode_length": 16, "runs": 3, "batch_sizes": (2, 4)}) == {"decode_length": [16, 8]}
    [found] = earlier.ratios(results(2, 4, factor=0.5))
    assert found["batch_size"] == 2
    assert set(found["decode"]["step_latency_ms"].values()) == {0.5}
    assert set(found["decode"]["tokens_per_second"].values()) == {1.0}


@pytest.mark.parametrize("text", ["", "[]", '{"results": 3}', '{"results": [{"batch_size": "2"}]}'])
def test_only_what_json_wrote_can_be_compared_with(text, directory):
    (directory / "other.json").write_text(text)
    with pytest.raises(BenchmarkError, match=r"--compare .*other.json is not a file that --json wrote"):
        Earlier.read(directory / "other.json")


def test_four_plots_are_drawn(directory):
    earlier = written(directory / "other.json", results(1, 4))
    paths = draw(directory / "plots", results(1, 2), earlier)
    assert [path.name for path in paths] == [
        "prefill-latency.png", "prefill-throughput.png", "decode-latency.png", "decode-throughput.png",
    ]  # fmt: skip
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
