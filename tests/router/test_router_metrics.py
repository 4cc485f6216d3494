"""Metrics: the names, types, labels and buckets that dashboards read, there before the first request."""

import asyncio
import re

import pytest

from mocks.metrics_table import PAGE, ROWS, table
from mocks.running_router import free_port, running_router
from text_generation_router.exposition import Constant, Counter, Histogram, OpenLabelled, Registry

COUNTERS = {
    "tgi_request_count": None,
    "tgi_request_success": None,
    "tgi_request_failure": (
        "err",
        ["validation", "overloaded", "generation", "incomplete", "template", "timeout", "dropped", "internal"],
    ),
    "tgi_batch_concat": ("reason", ["backpressure", "wait_exceeded", "chunking"]),
    "tgi_batch_inference_count": ("method", ["prefill", "decode"]),
    "tgi_batch_inference_success": ("method", ["prefill", "decode"]),
    "tgi_batch_inference_failure": ("method", ["prefill", "decode"]),
    "tgi_request_finish": ("reason", ["length", "eos_token", "stop_sequence"]),
    "tgi_request_finish_tokens": ("reason", ["length", "eos_token", "stop_sequence"]),
    "tgi_adapter_request_count": ("adapter", ["empty"]),
    "tgi_adapter_prompt_tokens": ("adapter", ["empty"]),
    "tgi_adapter_generated_tokens": ("adapter", ["empty"]),
    "tgi_generated_tokens": None,
    "tgi_prompt_tokens": None,
    "tgi_prefix_cache_hit_tokens": None,
}
GAUGES = [
    "tgi_queue_size",
    "tgi_batch_current_size",
    "tgi_batch_current_max_tokens",
    "tgi_batch_max_total_tokens",
    "tgi_cache_blocks",
    "tgi_cache_blocks_used",
    "tgi_cache_blocks_cached",
    "tgi_build_info",
]
DURATIONS = [
    "tgi_request_duration",
    "tgi_request_validation_duration",
    "tgi_request_queue_duration",
    "tgi_request_inference_duration",
    "tgi_request_mean_time_per_token_duration",
    "tgi_request_time_to_first_token_duration",
    "tgi_request_inter_token_duration",
]
METHOD_DURATIONS = [f"tgi_batch_{name}_duration" for name in ("inference", "forward", "decode", "filter", "concat")]
SIZES = {
    "tgi_request_input_length": [40 * (i + 1) / 100 for i in range(100)],
    "tgi_request_generated_tokens": [80 * (i + 1) / 100 for i in range(100)],
    "tgi_request_max_new_tokens": [80 * (i + 1) / 100 for i in range(100)],
    "tgi_batch_next_size": list(range(1, 1025)),
    "tgi_request_skipped_tokens": [0],
}

DASHBOARD = """
batch_concat{reason} batch_concat_duration_bucket{method="decode"} batch_current_max_tokens batch_current_size
batch_decode_duration_bucket{method="decode"} batch_filter_duration_bucket{method="decode"}
batch_forward_duration_bucket{method="decode"} batch_inference_duration_bucket{method="decode"}
batch_inference_duration_bucket{method="prefill"} queue_size request_count request_duration_bucket request_failure{err}
request_generated_tokens_bucket request_generated_tokens_count request_generated_tokens_sum request_input_length_bucket
request_mean_time_per_token_duration_bucket request_queue_duration_bucket request_skipped_tokens_bucket request_success
"""
"""What the queries of assets/tgi_grafana.json of text-generation-inference 3.3.7 select and group by, less `tgi_`."""


def bounds(text: str, prefix: str) -> list[float]:
    lines = [line for line in text.splitlines() if line.startswith(prefix) and "+Inf" not in line]
    return [float(line.partition('le="')[2].partition('"')[0]) for line in lines]


async def test_every_series_is_there_from_the_start(directory):
    options = {"max_input_tokens": 40, "max_total_tokens": 80}
    async with running_router(directory, options=options) as router:
        answer = await router.client.get("/metrics")
        assert answer.headers["content-type"].startswith("text/plain")
        text = answer.text
    types = dict(line.split()[2:4] for line in text.splitlines() if line.startswith("# TYPE"))
    histograms = [*DURATIONS, *METHOD_DURATIONS, *SIZES]
    expected = {**dict.fromkeys(COUNTERS, "counter"), **dict.fromkeys(GAUGES, "gauge")}
    assert types == {**expected, **dict.fromkeys(histograms, "histogram")}
    for name, labels in COUNTERS.items():
        lines = [f'{name}{{{labels[0]}="{value}"}} 0' for value in labels[1]] if labels else [f"{name} 0"]
        assert all(line in text.splitlines() for line in lines)
    durations = pytest.approx([0.0001 * 1.5**i for i in range(1, 36)])
    for name in DURATIONS:
        assert bounds(text, f"{name}_bucket") == durations and f"{name}_count 0" in text
    for name in METHOD_DURATIONS:
        for method in ("prefill", "decode"):
            assert bounds(text, f'{name}_bucket{{method="{method}",') == durations
    for name, steps in SIZES.items():
        assert bounds(text, f"{name}_bucket") == pytest.approx(steps)


async def test_requests_move_them(directory):
    async with running_router(directory) as router:
        await router.generate("Hello", max_new_tokens=5)
        await router.generate("Hello", max_new_tokens=5)
        await router.until_idle()
        expected = {
            "tgi_request_count": 2,
            "tgi_request_success": 2,
            'tgi_batch_inference_count{method="prefill"}': 2,
            'tgi_batch_inference_count{method="decode"}': 8,
            'tgi_batch_inference_success{method="decode"}': 8,
            'tgi_batch_inference_duration_count{method="decode"}': 8,
            'tgi_batch_forward_duration_sum{method="prefill"}': 0.006,
            "tgi_request_input_length_sum": 12,
            "tgi_request_generated_tokens_sum": 10,
            "tgi_request_duration_count": 2,
            "tgi_request_skipped_tokens_count": 10,
            "tgi_batch_next_size_count": 2,
            "tgi_batch_max_total_tokens": 4096,
            "tgi_request_time_to_first_token_duration_count": 2,
            "tgi_request_inter_token_duration_count": 8,
            "tgi_prompt_tokens": 12,
            "tgi_prefix_cache_hit_tokens": 5,
            "tgi_cache_blocks": 4095,
            "tgi_cache_blocks_cached": 6,
            "tgi_queue_size": 0,
            "tgi_batch_current_size": 0,
        }
        assert {line: await router.metric(line) for line in expected} == pytest.approx(expected)


@pytest.mark.parametrize("chunking", [True, False])
async def test_tgis_dashboard_has_something_to_show(directory, chunking):
    """Every series that it asks for is there, and moves: but failures, and a joining of batches that shards report."""
    async with running_router(directory, chunking=chunking, options={"max_input_tokens": 60}) as router:
        await asyncio.gather(*(router.generate(f"prompt {n}", max_new_tokens=20) for n in range(4)))
        lines = (await router.client.get("/metrics")).text.splitlines()
    for query in DASHBOARD.split():
        name, label = re.fullmatch(r"(\w+)(?:\{(.*)\})?", query).groups()
        found = [line for line in lines if re.match(rf"tgi_{name}(\{{.*)? ", line) and (label or "") in line]
        assert found, query
        still = "failure" in name or "concat" in name or "current" in name or "queue_size" in name
        assert still or any(not line.endswith(" 0") for line in found), query


async def test_answers_are_counted_by_their_end_and_by_adapter(directory):
    async with running_router(directory, adapters=['a "quoted" one'], eos_after=4) as router:
        await router.generate("Hello", max_new_tokens=3)
        await router.generate("Hello", max_new_tokens=9, adapter_id='a "quoted" one')
        expected = {
            'tgi_request_finish{reason="length"}': 1,
            'tgi_request_finish_tokens{reason="eos_token"}': 4,
            'tgi_adapter_request_count{adapter="empty"}': 1,
            'tgi_adapter_prompt_tokens{adapter="a \\"quoted\\" one"}': 6,
            'tgi_adapter_generated_tokens{adapter="a \\"quoted\\" one"}': 4,
            "tgi_generated_tokens": 7,
        }
        assert {line: await router.metric(line) for line in expected} == expected


async def test_the_build_is_told(directory):
    async with running_router(directory) as router:
        text = (await router.client.get("/metrics")).text
        version = (await router.client.get("/info")).json()["version"]
    assert f'tgi_build_info{{version="{version}",model="{directory}",dtype="torch.float32",device="cpu",' in text


def test_the_page_has_the_table_of_all_metrics():
    assert ROWS.search(PAGE.read_text()).group() == table(), "`make docs` writes it again"


async def outcomes(router) -> dict[str, float]:
    """How requests ended so far, zeros left out."""
    reasons = [f'tgi_request_failure{{err="{reason}"}}' for reason in COUNTERS["tgi_request_failure"][1]]
    counts = {line: await router.metric(line) for line in ("tgi_request_count", "tgi_request_success", *reasons)}
    return {line.partition('"')[2].rstrip('"}') or line: value for line, value in counts.items() if value}


async def test_the_best_of_several_is_one_request(directory):
    async with running_router(directory) as router:
        answer = await router.generate("Hello", max_new_tokens=3, best_of=2, do_sample=True)
        assert answer.status_code == 200
        assert await outcomes(router) == {"tgi_request_count": 1, "tgi_request_success": 1}
        for series in ("input_length", "generated_tokens", "duration", "max_new_tokens"):
            assert await router.metric(f"tgi_request_{series}_count") == 1
        router.shard.failures["Decode"] = "broken"
        assert (await router.generate("Hello", max_new_tokens=3, best_of=2, do_sample=True)).status_code == 424
        await router.until_idle()
        assert await outcomes(router) == {"tgi_request_count": 2, "tgi_request_success": 1, "generation": 1}


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
async def test_a_fault_of_our_own_is_a_failure_too(directory, monkeypatch, path):
    def broken(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr("text_generation_router.validation.check_values", broken)
    async with running_router(directory) as router:
        assert (await router.client.post(path, json={"inputs": "a"})).status_code == 500
        assert await outcomes(router) == {"tgi_request_count": 1, "internal": 1}


@pytest.mark.parametrize("path", ["/generate", "/generate_stream"])
@pytest.mark.parametrize("sent", [b"{", b'{"inputs": "a"}'], ids=["in its body", "before the first batch"])
async def test_a_client_that_leaves_early_is_a_failure(directory, path, sent):
    async with running_router(directory) as router:
        router.shard.running.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", router.client.base_url.port)
        head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 15\r\n\r\n"
        writer.write(head.encode() + sent)
        while await router.metric("tgi_request_count") < 1:
            await asyncio.sleep(0.01)
        writer.close()
        async with asyncio.timeout(5):
            while await outcomes(router) != {"tgi_request_count": 1, "dropped": 1}:
                await asyncio.sleep(0.01)
        router.shard.running.set()
        await router.until_idle()
        assert await outcomes(router) == {"tgi_request_count": 1, "dropped": 1}


async def test_other_routes_count_no_requests(directory):
    async with running_router(directory) as router:
        assert (await router.client.post("/tokenize", json={})).status_code == 422
        assert await outcomes(router) == {}


async def test_a_port_of_their_own_serves_nothing_else(directory):
    port = free_port()
    async with running_router(directory, options={"prometheus_port": port}) as router:
        base = f"http://127.0.0.1:{port}"
        assert "tgi_queue_size" in (await router.client.get(f"{base}/metrics")).text
        assert (await router.client.post(f"{base}/generate", json={"inputs": "a"})).status_code == 404


async def test_a_taken_port_for_metrics_is_no_reason_not_to_serve(directory, tmp_path_factory):
    port = free_port()
    async with running_router(directory, options={"prometheus_port": port}):
        other = tmp_path_factory.mktemp("r")
        async with running_router(other, options={"prometheus_port": port}) as second:
            assert (await second.client.get("/metrics")).status_code == 200


def test_a_value_counts_for_every_bound_it_does_not_exceed():
    registry = Registry()
    histogram = registry.add("histogram", "h", "Help", Histogram([1, 2.5]))
    for value in (0.5, 1, 2, 9):
        histogram.observe(value)
    assert registry.text().splitlines() == [
        "# HELP h Help",
        "# TYPE h histogram",
        'h_bucket{le="1"} 2',
        'h_bucket{le="2.5"} 3',
        'h_bucket{le="+Inf"} 4',
        "h_sum 12.5",
        "h_count 4",
    ]


def test_a_label_has_no_more_values_than_it_may():
    registry = Registry()
    open_one = registry.add("counter", "c", "Help", OpenLabelled("of", Counter, ["a"], 3, "other"))
    for value in ("b", "c", "d", "b", "a"):
        open_one[value].add()
    assert [line for line in registry.text().splitlines() if line[0] != "#"] == [
        'c{of="a"} 1',
        'c{of="b"} 2',
        'c{of="other"} 2',
    ]


def test_what_a_label_says_cannot_end_it():
    registry = Registry()
    registry.add("gauge", "g", "Help", Constant({"name": 'a"b\\c\nd'}))
    assert registry.text().splitlines()[-1] == r'g{name="a\"b\\c\nd"} 1'
