"""Makes the router's parts from options and what the shards said, and ties them together. The only place that does."""

import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from text_generation_router.adapters import Adapters
from text_generation_router.backend import Backend
from text_generation_router.batcher import Batcher, BatchPolicy
from text_generation_router.blocks import BlockAllocator
from text_generation_router.errors import StartError
from text_generation_router.figures import Figures
from text_generation_router.grammar import TRIAL_TOKENS
from text_generation_router.handshake import Facts, Ready
from text_generation_router.health import HealthCheck
from text_generation_router.images.fetching import Fetcher, FetchRules
from text_generation_router.images.files import ImageFiles
from text_generation_router.inference import Inference
from text_generation_router.metrics import Metrics
from text_generation_router.model_text import ModelText
from text_generation_router.permits import Permits
from text_generation_router.prompts import Images
from text_generation_router.queue import WaitingQueue
from text_generation_router.routes.naming import ModelNames
from text_generation_router.routes.services import Services
from text_generation_router.runs import LocalRuns
from text_generation_router.settings import Settings
from text_generation_router.shards.client import ShardedClient
from text_generation_router.timelimit import TimeLimit
from text_generation_router.tokenizer import PromptTokenizer
from text_generation_router.traces import NO_TRACES, Traces
from text_generation_router.types import ShardInfo
from text_generation_router.validation import RequestLimits, Validator
from text_generation_server.errors import StartError as ServerStartError
from text_generation_server.grammar.compiler import GrammarCompiler
from text_generation_server.images.prompts import ImagePrompts


@dataclass(frozen=True, slots=True)
class BatchSide:
    """What batches requests, and what of it is asked for by those who answer them."""

    shards: ShardedClient
    batcher: Batcher
    runs: LocalRuns
    permits: Permits
    metrics: Metrics
    backend: Backend


def make_batch_side(settings: Settings, ready: Ready, traces: Traces = NO_TRACES) -> BatchSide:
    """Everything between clients' requests and the shards."""
    info, limits = ready.facts.info, ready.facts.limits
    metrics = make_metrics(settings, ready.facts)
    allocator = BlockAllocator(limits.max_batch_total_tokens // info.block_size, info.block_size, info.shares_prefixes)
    metrics.batches.max_total_tokens.set(limits.max_batch_total_tokens)
    metrics.cache.blocks.set(allocator.usable_blocks)
    queue = WaitingQueue(
        allocator, info.speculate, info.support_chunking, _longest_resumed(settings, info), metrics.requests
    )
    batcher = Batcher(ready.shards, queue, allocator, _policy(settings, ready, traces), metrics, traces)
    adapters = Adapters(ready.shards.adapters, info.adapters)
    runs = LocalRuns(batcher, adapters, traces)
    permits = Permits(settings.max_concurrent_requests)
    backend = Backend(
        runs=runs,
        adapters=adapters,
        health=HealthCheck(ready.shards, batcher, settings.watchdog_timeout),
        permits=permits,
        figures=Figures(metrics),
    )
    return BatchSide(ready.shards, batcher, runs, permits, metrics, backend)


def make_metrics(settings: Settings, facts: Facts) -> Metrics:
    """All series, the same in each process."""
    return Metrics(facts.limits, facts.info.speculate, facts.info.adapters, build_facts(settings, facts.info))


def make_services(
    settings: Settings, facts: Facts, model: ModelText, backend: Backend, metrics: Metrics, keep_alive_s: float
) -> Services:
    """Everything that handlers need. metrics: of this process."""
    info = facts.info
    ceilings = RequestLimits(
        max_best_of=settings.max_best_of,
        max_stop_sequences=settings.max_stop_sequences,
        max_top_n_tokens=settings.max_top_n_tokens,
        max_client_batch_size=settings.max_client_batch_size,
        grammars=not settings.disable_grammar_support,
    )
    tokenizer = PromptTokenizer(model.tokenizer, settings.validation_workers)
    grammars = GrammarCompiler(model.tokenizer, info.vocab_size or model.tokenizer.vocab_size, TRIAL_TOKENS)
    adapters, time_limit = backend.adapters, TimeLimit(settings.request_timeout)
    images = _images(settings, model, info)
    validator = Validator(
        tokenizer, grammars, ceilings, facts.limits, adapters, info.vocab_size, info.extensions, images
    )
    return Services(
        adapters=adapters,
        names=ModelNames(_model_name(settings), adapters, settings.strict_model_names),
        health=backend.health,
        validator=validator,
        inference=Inference(backend.runs, time_limit, metrics.requests, info.shares_prefixes),
        tokenizer=tokenizer,
        template=model.template,
        dialect=model.dialect,
        permits=backend.permits,
        metrics=metrics,
        figures=backend.figures,
        info=_info(settings, facts, model.sha),
        full_text_by_default=True,  # as for every model whose pipeline the hub does not tell
        compute_type=settings.compute_type,
        payload_limit=settings.payload_limit,
        keep_alive_s=keep_alive_s,
    )


def _images(settings: Settings, model: ModelText, info: ShardInfo) -> Images | None:
    """What takes images, if model and shards do: ours say so, of others their models' files have to do. StartError."""
    if model.images is None or (info.extensions and "images" not in info.extensions):
        return None
    rules = FetchRules(settings.max_image_fetch_size, settings.image_url_timeout, settings.image_url_private)
    try:
        prompts = ImagePrompts(model.images, model.tokenizer)
    except ServerStartError as error:
        raise StartError(str(error)) from error
    return Images(prompts, ImageFiles(Fetcher(rules), settings.max_images))


def _longest_resumed(settings: Settings, info: ShardInfo) -> int:
    """With how many tokens a request may come back for another stay: what was generated becomes prompt."""
    if not info.support_resuming:
        return 0
    return sys.maxsize if info.support_chunking else settings.max_batch_prefill_tokens


def _policy(settings: Settings, ready: Ready, traces: Traces) -> BatchPolicy:
    info = ready.facts.info
    return BatchPolicy(
        chunking=info.support_chunking,
        pushed=info.pushes_steps and traces is NO_TRACES,  # a step has a span only if it is a call
        told_room=info.tells_prefill_room,
        max_prefill_tokens=settings.max_batch_prefill_tokens,
        max_batch_size=ready.max_batch_size,
        waiting_served_ratio=settings.waiting_served_ratio,
        max_waiting_tokens=settings.max_waiting_tokens,
    )


def _info(settings: Settings, facts: Facts, model_sha: str | None) -> dict[str, Any]:
    """The answer of `/info`: the keys of text-generation-inference 3, and those of 2 that still mean something."""
    return {
        "model_id": _model_name(settings),
        "model_sha": model_sha,
        "model_pipeline_tag": None,
        "model_dtype": facts.info.dtype,
        "model_device_type": facts.info.device_type,
        "max_concurrent_requests": settings.max_concurrent_requests,
        "max_best_of": settings.max_best_of,
        "max_stop_sequences": settings.max_stop_sequences,
        "max_input_tokens": facts.limits.max_input_tokens,
        "max_total_tokens": facts.limits.max_total_tokens,
        "waiting_served_ratio": settings.waiting_served_ratio,
        "max_batch_total_tokens": facts.limits.max_batch_total_tokens,
        "max_waiting_tokens": settings.max_waiting_tokens,
        "max_batch_size": settings.max_batch_size,
        "validation_workers": settings.validation_workers,
        "max_client_batch_size": settings.max_client_batch_size,
        "router": "text-generation-router",
        "version": _version(),
        "sha": None,
        "docker_label": None,
    }


def build_facts(settings: Settings, info: ShardInfo) -> dict[str, str]:
    """The labels of `tgi_build_info`."""
    facts = {"version": _version(), "model": _model_name(settings), "dtype": info.dtype, "device": info.device_type}
    return facts | {"attention": info.attention_impl}


def _model_name(settings: Settings) -> str:
    return settings.served_model_name or settings.tokenizer_name


def _version() -> str:
    try:
        return version("kvrun")
    except PackageNotFoundError:  # run from the source tree
        return "0+source"
