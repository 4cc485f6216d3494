"""From a model directory to one rank of a model. Knows the order of things, and nothing about any of them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from loguru import logger

from text_generation_server.architectures.registry import ModelSpec, has_architecture, read_spec
from text_generation_server.attention.base import AUTO, TOKENWISE
from text_generation_server.choices import KvCacheDtype
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.quantised import quantisation_of, refuse_quantised
from text_generation_server.config.rope import override_scaling
from text_generation_server.distributed.group import TensorParallel
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.build import DecoderBuilder
from text_generation_server.models.build_recurrent import RecurrentBuilder
from text_generation_server.models.build_seq2seq import Seq2SeqBuilder
from text_generation_server.models.invariant import ONE_BY_ONE, SIZES, invariant
from text_generation_server.models.kv_form import narrow_type
from text_generation_server.models.positions import log_positions
from text_generation_server.models.step import ServedModel
from text_generation_server.models.tensors import TensorReader
from text_generation_server.quantization.base import QuantScheme
from text_generation_server.quantization.dense import DenseScheme
from text_generation_server.quantization.formats.table import scheme_of, told_by
from text_generation_server.quantization.tuning import MatmulTuner
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.recurrent import RecurrentSpec
from text_generation_server.specs.seq2seq import Seq2SeqSpec
from text_generation_server.specs.vision import Sight
from text_generation_server.weights.checkpoint import Checkpoint, Progress, SavedCheckpoint
from text_generation_server.weights.random import RandomCheckpoint


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """What an operator decides about a model.

    dtype: of weights and activations. attention: name of a backend.
    rope_scaling, rope_factor: kind and factor that replace what config.json says, None to leave it.
    trust_remote_code: lets transformers run Python code of the directory of a model without an architecture here.
    random_weights: makes weights up instead of reading any, for measurements.
    kernel_choices: file that remembers which matrix kernels are fastest on a GPU, None to measure at each start.
    quantize: what a plain checkpoint's linears are made into, or a quantised one's method, which it says itself.
    deterministic: makes a token's numbers independent of what else is in its step, on a CPU; `attention` is not asked.
    kv_cache_dtype: what keys and values are kept as.
    """

    dtype: torch.dtype
    device: torch.device
    attention: str = AUTO
    rope_scaling: str | None = None
    rope_factor: float | None = None
    trust_remote_code: bool = False
    random_weights: bool = False
    kernel_choices: Path | None = None
    deterministic: bool = False
    quantize: str | None = None
    kv_cache_dtype: KvCacheDtype = KvCacheDtype.AUTO


def load_model(directory: Path, options: ModelOptions, group: TensorParallel, progress: Progress) -> ServedModel:
    """This rank's part of the model in `directory`.

    Weights are read tensor by tensor, so that memory holds them once. `progress` is told the bytes of the checkpoint
    dealt with so far and in all; a rank reads its part of each tensor.

    Raises:
        ModelNotFound: config.json or weights are missing.
        UnsupportedModel: something about the model is not supported; the text says what.
    """
    if options.deterministic:
        plain = replace(options, deterministic=False, attention=TOKENWISE)
        model = load_model(directory, plain, group, progress)
        if model.encoder is not None:
            raise UnsupportedModel("--deterministic is not for models with an encoder: leave it out")
        if model.reader is not None and model.reader.sight is not Sight.CAUSAL:
            raise UnsupportedModel(
                "--deterministic is not for models whose tokens see what is behind them: leave it out"
            )
        if model.reader is not None and model.reader.views is not None:
            raise UnsupportedModel("--deterministic is not for models whose layers attend to images: leave it out")
        return invariant(model, group, SIZES if _token_by_token(directory) else ONE_BY_ONE)
    config = ConfigDict.load(directory / "config.json")
    if not has_architecture(config):
        refuse_quantised(directory, config)
        return _through_transformers(directory, config, options, group, progress)
    if options.rope_scaling is not None:
        config = override_scaling(config, options.rope_scaling, options.rope_factor or 1.0)
    spec = read_spec(config)
    if options.rope_scaling is not None and not spec.rotates:
        raise UnsupportedModel(f"rope scaling was asked for, but {directory} has no rotary positions: leave it out")
    log_positions(spec.max_positions)
    logger.debug("not read from config.json: {}", ", ".join(config.unread()))
    found = quantisation_of(directory, config)
    narrow = narrow_type(options.kv_cache_dtype, found, options.device)
    if isinstance(spec, RecurrentSpec) and options.kv_cache_dtype is not KvCacheDtype.AUTO:
        raise UnsupportedModel(
            f"--kv-cache-dtype {options.kv_cache_dtype} is for models with attention, and this one keeps no keys and "
            "values: leave it out"
        )
    checkpoint: Checkpoint = (
        RandomCheckpoint(options.dtype, options.device, progress)
        if options.random_weights
        else _saved(directory, spec, progress, quantised=found is not None)
    )
    tuner = MatmulTuner(options.kernel_choices, options.device) if options.device.type == "cuda" else None
    dense = DenseScheme(options.dtype, options.device, tuner)
    scheme = scheme_of(found or told_by(checkpoint), options.quantize, dense)
    model = _build(spec, checkpoint, scheme, dense, group, options.attention, narrow)
    checkpoint.check_consumed()
    if tuner is not None:
        logger.info("Weights take {:.2f} GB on this rank", torch.cuda.memory_allocated(options.device) / 1e9)
        tuner.tune()
    return model


def _saved(directory: Path, spec: ModelSpec, progress: Progress, quantised: bool) -> SavedCheckpoint:
    aliases = spec.names.aliases if isinstance(spec, DecoderSpec) else ()
    return SavedCheckpoint(directory, spec.names.family_prefix, progress, quantised, aliases)


def _build(
    spec: ModelSpec,
    checkpoint: Checkpoint,
    scheme: QuantScheme[Any],
    dense: DenseScheme,
    group: TensorParallel,
    attention: str,
    narrow: torch.dtype | None,
) -> ServedModel:
    transposed = isinstance(spec, DecoderSpec) and spec.names.conv1d
    aliases = spec.names.aliases if isinstance(spec, DecoderSpec) else ()
    reader = TensorReader(checkpoint, scheme, dense, transposed, aliases)
    match spec:
        case DecoderSpec():
            return DecoderBuilder(spec, reader, group, attention, narrow).build()
        case RecurrentSpec():
            return RecurrentBuilder(spec, reader, group).build()
        case Seq2SeqSpec():
            return Seq2SeqBuilder(spec, reader, group, narrow).build()


def _token_by_token(directory: Path) -> bool:
    """Whether a step can be cut anywhere, and products have a row for each token.

    Experts have others, recurrences go on from token to token, and generic code is unknown.
    """
    config = ConfigDict.load(directory / "config.json")
    if not has_architecture(config):
        return False
    spec = read_spec(config)
    return isinstance(spec, DecoderSpec) and spec.moe is None and not spec.ssd_layers


def _through_transformers(
    directory: Path,
    config: ConfigDict,
    options: ModelOptions,
    group: TensorParallel,
    progress: Progress,
) -> ServedModel:
    model_type = config.text("model_type")
    for asked, what in (
        (group.world_size > 1, "more than one shard"),
        (options.rope_scaling, "another rope scaling"),
        (options.random_weights, "random weights"),
        (options.quantize, "weights of few bits"),
    ):
        if asked:
            raise UnsupportedModel(
                f"model_type {model_type} has no architecture of its own here; through transformers' code it cannot "
                f"have {what}: leave that out"
            )
    from text_generation_server.models.generic.loading import load_generic  # transformers takes seconds to import

    narrow = narrow_type(options.kv_cache_dtype, None, options.device)
    placed = options.dtype, options.device, options.attention
    return load_generic(directory, model_type, *placed, options.trust_remote_code, progress, narrow)
