"""Every metric of the router: text-generation-inference's, whose names, types, labels and buckets dashboards read, and
others in its style. Knows nothing of how metrics are shown.
"""

from collections.abc import Mapping, Sequence

from text_generation_router.exposition import Constant, Counter, Gauge, Histogram, Labelled, OpenLabelled, Registry
from text_generation_router.types import FinishReason, GeneratedText, StepTimings, TokenLimits, ValidRequest

METHODS = ("prefill", "decode")
FAILURES = ("validation", "overloaded", "generation", "incomplete", "template", "timeout", "dropped", "internal")
CONCAT_REASONS = ("backpressure", "wait_exceeded", "chunking")

MOST_ADAPTERS = 64
"""Values of the label `adapter`, so that what is scraped stays small however many come and go."""

NO_ADAPTER = "empty"
"""What kv.run calls the model itself; no adapter can be called so."""

_SECONDS = tuple(0.0001 * 1.5**i for i in range(1, 36))
"""Bounds of durations: 0.15 ms to about two and a half minutes."""


class Metrics:
    """All series, there from the start so that dashboards show zeros rather than nothing."""

    def __init__(
        self, limits: TokenLimits, speculate: int, adapters: Sequence[str] = (), build: Mapping[str, str] | None = None
    ) -> None:
        self.registry = Registry()
        make = _Maker(self.registry)
        self.requests = RequestMetrics(make, limits, speculate, adapters)
        self.batches = BatchMetrics(make)
        self.cache = CacheMetrics(make)
        self.registry.add("gauge", "tgi_build_info", "1, with what runs in its labels", Constant(build or {}))

    def note_tokens(self, made: int, accepted: Mapping[int, int], waited: Sequence[tuple[float, int]]) -> None:
        """What a step brought: tokens, to how many requests how many, and how many waited how many seconds for it."""
        self.batches.generated_tokens.add(made)
        for count, requests in accepted.items():
            self.requests.skipped_tokens.observe(count - 1, requests)
        for seconds, requests in waited:
            self.requests.inter_token_latency.observe(seconds, requests)


class RequestMetrics:
    """From arrival to the last token."""

    def __init__(self, make: "_Maker", limits: TokenLimits, speculate: int, adapters: Sequence[str]) -> None:
        total = _steps(limits.max_total_tokens)
        self.count = make.counter("tgi_request_count", "Requests received")
        self.success = make.counter("tgi_request_success", "Requests answered")
        self.failure = make.counters("tgi_request_failure", "Requests failed", "err", FAILURES)
        self.duration = make.duration("tgi_request_duration", "Whole request")
        self.validation_duration = make.duration("tgi_request_validation_duration", "Arrival to queue")
        self.queue_duration = make.duration("tgi_request_queue_duration", "Queue to batch")
        self.inference_duration = make.duration("tgi_request_inference_duration", "Batch to last token")
        self.time_per_token = make.duration("tgi_request_mean_time_per_token_duration", "Inference time over tokens")
        self.input_length = make.histogram("tgi_request_input_length", "Prompt tokens", _steps(limits.max_input_tokens))
        self.generated_tokens = make.histogram("tgi_request_generated_tokens", "Generated tokens", total)
        self.max_new_tokens = make.histogram("tgi_request_max_new_tokens", "New tokens asked of the shards", total)
        self.skipped_tokens = make.histogram(
            "tgi_request_skipped_tokens", "Accepted speculated tokens of a step", range(speculate + 1)
        )
        self.queue_size = make.gauge("tgi_queue_size", "Requests waiting")
        self.time_to_first_token = make.duration("tgi_request_time_to_first_token_duration", "Arrival to first token")
        self.inter_token_latency = make.duration("tgi_request_inter_token_duration", "One token to the next")
        reasons = tuple(FinishReason)
        self.finish = make.counters("tgi_request_finish", "Answers completed, by why they ended", "reason", reasons)
        self.finish_tokens = make.counters(
            "tgi_request_finish_tokens", "Tokens of completed answers", "reason", reasons
        )
        self.adapters = AdapterMetrics(make, adapters)

    def note_finished(self, request: ValidRequest, final: GeneratedText) -> None:
        """A request's answer is complete."""
        self.generated_tokens.observe(final.generated_tokens)
        self.finish[final.finish_reason].add()
        self.finish_tokens[final.finish_reason].add(final.generated_tokens)
        self.adapters.note_finished(request, final)


class AdapterMetrics:
    """Who uses which adapter."""

    def __init__(self, make: "_Maker", adapters: Sequence[str]) -> None:
        self.count = make.by_adapter("tgi_adapter_request_count", "Answers completed", adapters)
        self.prompt_tokens = make.by_adapter(
            "tgi_adapter_prompt_tokens", "Tokens of their prompts, cached or not", adapters
        )
        self.generated_tokens = make.by_adapter("tgi_adapter_generated_tokens", "Tokens of completed answers", adapters)

    def note_finished(self, request: ValidRequest, final: GeneratedText) -> None:
        """A request's answer is complete."""
        name = request.adapter_id or NO_ADAPTER
        self.count[name].add()
        self.prompt_tokens[name].add(len(request.input_ids))
        self.generated_tokens[name].add(final.generated_tokens)


class BatchMetrics:
    """The running batch, and the calls to the shards by method."""

    def __init__(self, make: "_Maker") -> None:
        self.current_size = make.gauge("tgi_batch_current_size", "Requests in the running batch")
        self.current_max_tokens = make.gauge("tgi_batch_current_max_tokens", "Tokens the running batch may grow to")
        self.next_size = make.histogram("tgi_batch_next_size", "Requests in a new batch", range(1, 1025))
        self.concat = make.counters("tgi_batch_concat", "New batches joined to a running one", "reason", CONCAT_REASONS)
        self.max_total_tokens = make.gauge("tgi_batch_max_total_tokens", "Tokens the cache has room for")
        self.inference_count = make.counters("tgi_batch_inference_count", "Calls started", "method", METHODS)
        self.inference_success = make.counters("tgi_batch_inference_success", "Calls answered", "method", METHODS)
        self.inference_failure = make.counters("tgi_batch_inference_failure", "Calls failed", "method", METHODS)
        self.inference_duration = make.durations("tgi_batch_inference_duration", "Call and delivery")
        self.forward_duration = make.durations("tgi_batch_forward_duration", "The shard's forward pass")
        self.decode_duration = make.durations("tgi_batch_decode_duration", "The shard's sampling and detokenising")
        self.filter_duration = make.durations("tgi_batch_filter_duration", "Delivering tokens and filtering the batch")
        self.concat_duration = make.durations("tgi_batch_concat_duration", "The shard's joining of batches")
        self.generated_tokens = make.counter("tgi_generated_tokens", "Tokens generated, counted as they are")

    def note_answer(self, method: str, timings: StepTimings, whole_s: float, handling_s: float) -> None:
        """An answered call. whole_s: from sending it to its last token delivered; handling_s: the router's part."""
        self.inference_success[method].add()
        self.inference_duration[method].observe(whole_s)
        self.filter_duration[method].observe(handling_s)
        self.forward_duration[method].observe(timings.forward_ns / 1e9)
        self.decode_duration[method].observe(timings.decode_ns / 1e9)
        if timings.concat_ns is not None:
            self.concat_duration[method].observe(timings.concat_ns / 1e9)


class CacheMetrics:
    """The cache blocks, and what sharing prompts saved."""

    def __init__(self, make: "_Maker") -> None:
        self.blocks = make.gauge("tgi_cache_blocks", "Cache blocks that requests can have")
        self.used_blocks = make.gauge("tgi_cache_blocks_used", "Cache blocks held by running requests")
        self.cached_blocks = make.gauge("tgi_cache_blocks_cached", "Cache blocks that only keep finished prompts")
        self.prompt_tokens = make.counter("tgi_prompt_tokens", "Prompt tokens of requests that entered a batch")
        self.hit_tokens = make.counter("tgi_prefix_cache_hit_tokens", "Prompt tokens found in the cache")


class _Maker:
    """Makes series and registers them."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    def counter(self, name: str, help: str) -> Counter:
        return self._registry.add("counter", name, help, Counter())

    def counters(self, name: str, help: str, label: str, values: Sequence[str]) -> Labelled[Counter]:
        return self._registry.add("counter", name, help, Labelled(label, {value: Counter() for value in values}))

    def by_adapter(self, name: str, help: str, adapters: Sequence[str]) -> OpenLabelled[Counter]:
        series = OpenLabelled("adapter", Counter, (NO_ADAPTER, *adapters), MOST_ADAPTERS, "other")
        return self._registry.add("counter", name, help, series)

    def gauge(self, name: str, help: str) -> Gauge:
        return self._registry.add("gauge", name, help, Gauge())

    def histogram(self, name: str, help: str, bounds: Sequence[float]) -> Histogram:
        return self._registry.add("histogram", name, help, Histogram(bounds))

    def duration(self, name: str, help: str) -> Histogram:
        return self.histogram(name, f"{help}, seconds", _SECONDS)

    def durations(self, name: str, help: str) -> Labelled[Histogram]:
        series = Labelled("method", {method: Histogram(_SECONDS) for method in METHODS})
        return self._registry.add("histogram", name, f"{help}, seconds", series)


def _steps(limit: int) -> Sequence[float]:
    """A hundred equal steps up to `limit`."""
    return [limit / 100 * (i + 1) for i in range(100)]
