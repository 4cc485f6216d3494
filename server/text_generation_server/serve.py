"""Composition root of the command `serve`: settings to tokenizer, model, engine and server. Decides nothing itself."""

import gc
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from loguru import logger

from text_generation_server.adapters.files import locate_adapter
from text_generation_server.adapters.loading import add_adapters
from text_generation_server.adapters.names import NO_ADAPTERS, AdapterNames
from text_generation_server.adapters.pairs import read_adapter
from text_generation_server.attention.base import AUTO, CLASSIC
from text_generation_server.choices import LoadFormat
from text_generation_server.distributed.group import TensorParallel, join_group
from text_generation_server.engine.assemble import build_engine, build_follower
from text_generation_server.engine.engine import Engine, EngineSettings
from text_generation_server.engine.graphs.decodes import usual_sizes
from text_generation_server.engine.loop import EngineLoop
from text_generation_server.engine.ranks import follow
from text_generation_server.engine.types import ShardInfo
from text_generation_server.errors import UnsupportedModel
from text_generation_server.lifetime import CLEAN, FAILED, Lifetime
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.models.step import ServedModel
from text_generation_server.placement import Placement, place
from text_generation_server.rpc.prompts import PromptEncoder
from text_generation_server.rpc.server import ShardServer
from text_generation_server.rpc.service import EngineService, FollowerService, Shard
from text_generation_server.rpc.sockets import reserve, socket_path, socket_url
from text_generation_server.rpc.wire_v2 import WireV2
from text_generation_server.rpc.wire_v3 import WireV3
from text_generation_server.settings import ServerConfig
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.weights.dummy import locate_without_weights
from text_generation_server.weights.source import locate

ATTENTION = {None: AUTO, True: "flashinfer", False: CLASSIC}
"""Backends by what --use-flashinfer and --disable-flashinfer say."""

PROGRESS_S = 0.5
"""Seconds between two reports on a model being loaded."""


@dataclass(frozen=True, slots=True)
class LoadedRank:
    """What every rank has once its part of the model is in memory."""

    directory: Path
    model: ServedModel
    placement: Placement
    group: TensorParallel
    adapters: AdapterNames = NO_ADAPTERS


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
    part = load_rank(config)
    about = describe(config, part)
    wires = WireV2(), WireV3(config.prefill_logprobs)
    if config.ranks.rank == 0:
        tokenizer = TokenizerAdapter.load(part.directory, config.options.trust_remote_code)
        warn_of_unknown_ids(tokenizer, part.model.vocab_size)
        loop = start_engine(config, part, tokenizer)
        v2, v3 = (EngineService(wire, about, loop, PromptEncoder(tokenizer), spare_collector) for wire in wires)
        return ShardServer(path, v2, v3, on_fatal=lambda: lifetime.end(FAILED))
    worker = Follower(config, part, lifetime)
    follower_v2, follower_v3 = (FollowerService(wire, about, worker) for wire in wires)
    return ShardServer(path, follower_v2, follower_v3, on_fatal=lambda: lifetime.end(FAILED))


def load_rank(config: ServerConfig) -> LoadedRank:
    """Find the model, meet the other ranks, and load what this one computes."""
    options, ranks = config.options, config.ranks
    directory = find_model(config)
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
    )
    model = load_model(directory, model_options, group, LoadProgress())
    if options.speculate and not all(spec.rewinds for spec in model.states):
        raise UnsupportedModel("--speculate is not for this model, which cannot take tokens back: leave it out")
    seconds = time.monotonic() - began
    logger.info("Loaded {} in {:.1f} s as {} on {}", directory.name, seconds, placement.dtype, placement.device)
    adapters = load_adapters(config, model)
    spare_collector()
    return LoadedRank(directory, model, placement, group, adapters)


def load_adapters(config: ServerConfig, model: ServedModel) -> AdapterNames:
    """Put this rank's part of all adapters beside the model's linears. Raises StartError for one that does not fit."""
    if not config.adapters:
        return NO_ADAPTERS
    if not model.linears:
        raise UnsupportedModel(
            "adapters are neither for models that run through transformers' code nor for --deterministic: leave out "
            "LORA_ADAPTERS and --lora-ids, or merge an adapter into the model"
        )
    places = [locate_adapter(source, config.hub, logger.info) for source in config.adapters]
    held = add_adapters(model.linears, [read_adapter(place) for place in places], model.dtype, model.device)
    names = AdapterNames(tuple(source.name for source in config.adapters), config.options.model_id)
    logger.info("Loaded the adapters {}: {:.1f} MB on this rank", ", ".join(names.names), held / 1e6)
    return names


def find_model(config: ServerConfig) -> Path:
    """The directory with all that --load-format needs."""
    options = config.options
    if options.load_format is LoadFormat.DUMMY:
        return locate_without_weights(options.model_id, options.revision, config.hub, logger.info)
    convert = options.load_format is LoadFormat.AUTO
    return locate(options.model_id, options.revision, config.hub, logger.info, auto_convert=convert)


def shares_prefixes(model: ServedModel) -> bool:
    """Whether requests may take over what the model computed for others."""
    return all(spec.shares_prefixes for spec in model.states)


def spare_collector() -> None:
    """Take what is alive now out of the garbage collection: it stays, and walking over it takes many steps' time."""
    gc.collect()
    gc.freeze()


class LoadProgress:
    """Logs now and then how far loading has come, in bytes; launchers draw a bar from it."""

    def __init__(self) -> None:
        self._logged_at = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        """Log the end, and what comes before unless that was done a moment ago."""
        if done < total and time.monotonic() - self._logged_at < PROGRESS_S:
            return
        self._logged_at = time.monotonic()
        report = logger.bind(phase="load", done=done, total=total)
        report.info("Loading: {:.0f} of {:.0f} MB", done / 1e6, total / 1e6)


def warn_of_unknown_ids(tokenizer: TokenizerAdapter, vocab_size: int) -> None:
    """Tell which tokens no prompt can have, as the model has no embedding of them."""
    beyond = tokenizer.ids_beyond(vocab_size)
    if beyond:
        logger.warning(
            "The tokenizer has {} tokens beyond the {} that the model knows, {!r} ({}) the first; "
            "prompts with them are refused",
            *(len(beyond), vocab_size, beyond[min(beyond)], min(beyond)),
        )


def start_engine(config: ServerConfig, part: LoadedRank, tokenizer: TokenizerAdapter) -> EngineLoop[Engine]:
    """Rank 0's engine in its own thread, once every follower has connected."""
    settings = EngineSettings(
        max_rows=config.max_rows,
        block_size=config.cache.block_size,
        run_ahead=config.options.run_ahead,
        memory_fraction=config.cache.memory_fraction,
        position_limit=part.model.max_positions,
        usual_length=usual_length(part.model.max_positions, tokenizer.model_max_length),
        watermark=config.watermark,
        shares_prefixes=shares_prefixes(part.model),
        speculate=config.options.speculate,
        graphs=tuple(usual_sizes(config.max_rows)) if config.graphs is None else config.graphs,
        adapters=part.adapters,
    )
    loop = EngineLoop(build_engine(part.model, tokenizer, part.group, settings, str(config.options.uds_path)))
    loop.start()
    return loop


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
        self._runner, self._plans = build_follower(part.model, part.group, str(config.options.uds_path))
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


def describe(config: ServerConfig, part: LoadedRank) -> Shard:
    """What this shard tells routers: to call rank 0 only, and to mind the cache's blocks."""
    if config.cache.prefix_caching and not shares_prefixes(part.model):
        logger.info("Prefix caching is off: this model rotates the same prompt differently in longer requests")
    shares = config.cache.prefix_caching and shares_prefixes(part.model)
    adapters = part.adapters.names
    info = ShardInfo(
        dtype=str(part.placement.dtype),
        device_type=part.placement.device.type,
        attention=config.cache.attention,
        block_size=config.cache.block_size,
        # Other routers' trees do not know adapters, and would let one request overwrite what another reads.
        prefix_caching=shares and not adapters,
        prefix_caching_by_adapter=shares and bool(adapters),
        adapters=adapters,
        # A router that plans chunks counts one token a row and step (docs/protocol.md#info).
        chunking=config.cache.chunking and not config.options.speculate,
        vocab_size=part.model.vocab_size,
        speculate=config.options.speculate,
    )
    return Shard(info, (socket_url(socket_path(config.options.uds_path, 0)),))
