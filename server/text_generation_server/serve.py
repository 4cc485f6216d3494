"""Composition root of the command `serve`: settings to tokenizer, model, engine and server. Decides nothing itself."""

import gc
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from loguru import logger

from text_generation_server.adapters.files import AdapterFiles
from text_generation_server.adapters.loading import NO_ADAPTERS, StartedAdapters, start_adapters
from text_generation_server.attention.base import AUTO, CLASSIC
from text_generation_server.choices import LoadFormat
from text_generation_server.distributed.group import TensorParallel, join_group
from text_generation_server.engine.assemble import build_engine, build_follower
from text_generation_server.engine.engine import Engine
from text_generation_server.engine.graphs.decodes import usual_sizes
from text_generation_server.engine.loop import EngineLoop
from text_generation_server.engine.ranks import follow
from text_generation_server.engine.settings import EngineSettings, no_places
from text_generation_server.engine.types import ShardInfo
from text_generation_server.errors import UnsupportedModel
from text_generation_server.images.placing import ImagePlacer, load_placer
from text_generation_server.lifetime import CLEAN, FAILED, Lifetime
from text_generation_server.log import Progress
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.step import ServedModel
from text_generation_server.placement import MIXED_TOKENS, Placement, place
from text_generation_server.rpc.adapters import AdapterService
from text_generation_server.rpc.prompts import PromptEncoder
from text_generation_server.rpc.server import ShardServer
from text_generation_server.rpc.service import EngineService, FollowerService, Shard
from text_generation_server.rpc.sockets import reserve, socket_path, socket_url
from text_generation_server.rpc.steps import StepsService
from text_generation_server.rpc.wire_v2 import WireV2
from text_generation_server.rpc.wire_v3 import WireV3
from text_generation_server.settings import MAX_ROWS, ServeOptions, ServerConfig
from text_generation_server.specs.vision import Sight
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.tracing import Tracing
from text_generation_server.weights.dummy import locate_without_weights
from text_generation_server.weights.source import locate

ATTENTION = {None: AUTO, True: "flashinfer", False: CLASSIC}
"""Backends by what --use-flashinfer and --disable-flashinfer say."""


@dataclass(frozen=True, slots=True)
class LoadedRank:
    """What every rank has once its part of the model is in memory."""

    directory: Path
    model: ServedModel
    placement: Placement
    group: TensorParallel
    adapters: StartedAdapters = NO_ADAPTERS


def serve(config: ServerConfig) -> int:
    """Load the model and serve it until a signal or a fatal error comes; returns the exit code. For the main thread."""
    if config.without_effect:
        logger.info("Set, but without effect here: {}", ", ".join(config.without_effect))
    lifetime = Lifetime()
    return lifetime.run(lambda: load(config, lifetime))


def load(config: ServerConfig, lifetime: Lifetime) -> ShardServer:
    """This rank's server, ready to start.

    Raises:
        StartError: the model cannot be found or served, or the socket is taken.
    """
    path = socket_path(config.options.uds_path, config.ranks.rank)
    lifetime.keeps.enter_context(reserve(path))  # before minutes of loading, in which nobody else shall begin there
    tracing = start_tracing(config.options)
    if tracing is not None:
        lifetime.keeps.callback(tracing.close)
    directory = find_model(config)
    if config.ranks.rank == 0:
        with ThreadPoolExecutor(1, "tokenizer") as aside:
            reading = aside.submit(TokenizerAdapter.load, directory, config.options.trust_remote_code)
            part = load_rank(config, directory)
            tokenizer = reading.result()
        warn_of_unknown_ids(tokenizer, part.model.vocab_size)
        engine = make_engine(config, part, tokenizer)
        loop = EngineLoop(engine, Engine.use_pause)
        loop.start()
        files = AdapterFiles(config.adapters.directory, config.hub, logger.info)
        about = describe(config, part, lambda: engine.adapters.names)
        images = None if part.model.reader is None else load_placer(part.directory, tokenizer)
        services = engine_services(config, about, loop, tokenizer, files, images)
        ours = AdapterService(loop, files), StepsService(loop)
        return ShardServer(path, *services, lambda: lifetime.end(FAILED), tracing, *ours)
    part = load_rank(config, directory)
    worker = Follower(config, part, lifetime)
    about = describe(config, part)
    v2, v3 = (FollowerService(wire, about, worker) for wire in (WireV2(), WireV3(config.prefill_logprobs)))
    return ShardServer(path, v2, v3, on_fatal=lambda: lifetime.end(FAILED))


def engine_services(
    config: ServerConfig,
    about: Shard,
    loop: EngineLoop[Engine],
    tokenizer: TokenizerAdapter,
    files: AdapterFiles,
    images: ImagePlacer | None = None,
) -> tuple[EngineService, EngineService]:
    """Both versions' calls on rank 0. images: prepares those of prompts; None where the model takes none.

    Adapters that a request names are looked for on disk where that is safe: routers of version 2 share no prefixes, and
    those of version 3 were told not to, if anything was said of adapters (docs/lora.md#prefixes).
    """
    about = replace(about, takes_images=images is not None)
    wires = WireV2(about.takes_images), WireV3(config.prefill_logprobs, about.takes_images)
    v2, v3 = (
        EngineService(
            wire, about, loop, PromptEncoder(tokenizer, images), spare_collector, files.found if looks else None
        )
        for wire, looks in zip(wires, (True, config.adapters.asked), strict=True)
    )
    return v2, v3


def start_tracing(options: ServeOptions) -> Tracing | None:
    """What sends spans, if a collector is asked for."""
    return Tracing(options.otlp_endpoint, options.otlp_service_name) if options.otlp_endpoint is not None else None


def load_rank(config: ServerConfig, directory: Path) -> LoadedRank:
    """Meet the other ranks, and load what this one computes."""
    options, ranks = config.options, config.ranks
    placement = place(ranks.rank, ranks.world_size, options.dtype, config.threads, options.deterministic)
    torch.set_num_threads(placement.threads)
    if placement.device.type == "cuda":
        torch.cuda.set_device(placement.device)  # where libraries launch that are not told
    group = join_group(ranks.rank, ranks.world_size, ranks.master_addr, ranks.master_port, placement.device)
    began = time.monotonic()
    model_options = ModelOptions(
        dtype=placement.dtype,
        device=placement.device,
        attention=ATTENTION[options.use_flashinfer],
        rope_scaling=config.rope_scaling,
        rope_factor=config.rope_factor,
        trust_remote_code=config.options.trust_remote_code,
        kernel_choices=config.kernel_choices,
        random_weights=options.load_format is LoadFormat.DUMMY,
        deterministic=options.deterministic,
        quantize=options.quantize,
        kv_cache_dtype=options.kv_cache_dtype,
    )
    model = load_model(directory, model_options, group, Progress("load", "Loading: {:.0f} of {:.0f} MB", 1e6))
    check_guesses(model, options.speculate)
    seconds = time.monotonic() - began
    logger.bind(phase="loaded", seconds=seconds).info(
        "Loaded {} in {:.1f} s as {} on {}", directory.name, seconds, placement.dtype, placement.device
    )
    adapters = start_adapters(
        config.adapters, model.linears, model.dtype, model.device, config.hub, options.model_id, logger.info
    )
    spare_collector()
    return LoadedRank(directory, model, placement, group, adapters)


def check_guesses(model: ServedModel, speculate: int) -> None:
    """Raises UnsupportedModel where tokens are to be guessed that the model could not take back."""
    if speculate and not all(spec.rewinds for spec in model.states):
        raise UnsupportedModel("--speculate is not for this model, which cannot take tokens back: leave it out")


def find_model(config: ServerConfig) -> Path:
    """The directory with all that --load-format needs."""
    options = config.options
    if options.load_format is LoadFormat.DUMMY:
        return locate_without_weights(options.model_id, options.revision, config.hub, logger.info)
    convert = options.load_format is LoadFormat.AUTO
    packed = options.quantize is not None and options.quantize.keeps_packing
    return locate(options.model_id, options.revision, config.hub, logger.info, auto_convert=convert, packed=packed)


def shares_prefixes(model: ServedModel) -> bool:
    """Whether requests may take over what the model computed for others."""
    return not any(spec.unshared for spec in model.states)


def sight_of(model: ServedModel) -> Sight:
    """Which positions of the model see what is behind them."""
    return Sight.CAUSAL if model.reader is None else model.reader.sight


def takes_chunks(model: ServedModel) -> bool:
    """Whether a prompt can be cut: an encoder reads it at once, and so it must be where all of it sees all of it."""
    return model.encoder is None and sight_of(model) is not Sight.PROMPTS


def spare_collector() -> None:
    """Take what is alive now out of the garbage collection: it stays, and walking over it takes many steps' time."""
    gc.collect()
    gc.freeze()


def warn_of_unknown_ids(tokenizer: TokenizerAdapter, vocab_size: int) -> None:
    """Tell which tokens no prompt can have, as the model has no embedding of them."""
    beyond = tokenizer.ids_beyond(vocab_size)
    if beyond:
        logger.warning(
            "The tokenizer has {} tokens beyond the {} that the model knows, {!r} ({}) the first; "
            "prompts with them are refused",
            *(len(beyond), vocab_size, beyond[min(beyond)], min(beyond)),
        )


def make_engine(config: ServerConfig, part: LoadedRank, tokenizer: TokenizerAdapter) -> Engine:
    """Rank 0's engine, once every follower has connected."""
    rows, reader = config.max_rows or MAX_ROWS, part.model.reader
    settings = EngineSettings(
        max_rows=rows,
        all_rows=config.max_rows is not None,
        block_size=config.cache.block_size,
        run_ahead=config.options.run_ahead,
        memory_fraction=config.cache.memory_fraction,
        position_limit=part.model.max_positions,
        usual_length=usual_length(part.model.max_positions, tokenizer.model_max_length),
        watermark=config.watermark,
        shares_prefixes=shares_prefixes(part.model),
        speculate=config.options.speculate,
        graphs=tuple(usual_sizes(rows)) if config.graphs is None else config.graphs,
        max_mixed_tokens=config.options.max_mixed_tokens or MIXED_TOKENS[part.placement.device.type],
        start=None if part.model.encoder is None else part.model.encoder.start,
        feature_places=no_places if reader is None else reader.places,
        sight=sight_of(part.model),
        views=None if reader is None else reader.views,
    )
    return build_engine(part.model, tokenizer, part.group, settings, str(config.options.uds_path), part.adapters)


def usual_length(positions: int | None, hint: int | None) -> int | None:
    """How long sequences get where nobody asks, from the tokenizer's `model_max_length`: for models without positions.

    Of models with positions it says nothing: files have there what a tokenizer was saved with, or a habit of chats.
    """
    if hint is None or hint == positions:
        return None
    what = f"model_max_length of tokenizer_config.json is {hint}"
    if positions is not None:
        logger.info("{}: not heeded, the model is good for {} tokens", what, positions)
        return None
    logger.info("Sequences of up to {} tokens where --max-total-tokens does not say: {}", hint, what)
    return hint


class Follower:
    """The thread in which another rank runs what rank 0 sends. The process ends with it."""

    def __init__(self, config: ServerConfig, part: LoadedRank, lifetime: Lifetime) -> None:
        self._runner, self._plans = build_follower(part.model, part.group, str(config.options.uds_path), part.adapters)
        self._lifetime = lifetime
        self._thread = threading.Thread(target=self._run, name="follower", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether plans are still run."""
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            follow(self._runner, self._plans)
        except BaseException as error:
            logger.exception("a step failed: {}", error)
            self._lifetime.end(FAILED)
        else:
            self._lifetime.end(CLEAN)


def describe(config: ServerConfig, part: LoadedRank, adapters: Callable[[], tuple[str, ...]] = tuple) -> Shard:
    """What this shard tells routers: to call rank 0 only, and to mind the cache's blocks. adapters: that have names."""
    if config.cache.prefix_caching and not shares_prefixes(part.model):
        reasons = (spec.unshared for spec in part.model.states)
        logger.info("Prefix caching is off for this model: {}", "; ".join(filter(None, reasons)))
    info = ShardInfo(
        dtype=str(part.placement.dtype),
        device_type=part.placement.device.type,
        attention=config.cache.attention,
        block_size=config.cache.block_size,
        prefix_caching=config.cache.prefix_caching and shares_prefixes(part.model),
        # A router that plans chunks counts one token a row and step (docs/protocol.md#info).
        chunking=config.cache.chunking and not config.options.speculate and takes_chunks(part.model),
        vocab_size=part.model.vocab_size,
        speculate=config.options.speculate,
    )
    urls = (socket_url(socket_path(config.options.uds_path, 0)),)
    return Shard(info, urls, adapters, expects_adapters=config.adapters.asked)
