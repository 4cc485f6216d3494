"""From a model directory to a `GenericModel`: transformers builds and fills it, we replace its attention.

Imports transformers, which takes seconds: to be imported only where it is needed.
"""

import inspect
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from loguru import logger
from transformers import AutoConfig, AutoModelForCausalLM

from text_generation_server.attention.base import AttentionShape, AttentionVariant, LayerAttention, create_backend
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.rope import POSITION_KEYS, read_max_positions
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.generic.bridge import PROBING, Call, Note, attach, register
from text_generation_server.models.generic.model import GenericModel
from text_generation_server.models.generic.probe import attention_calls
from text_generation_server.models.generic.selftest import check_answers
from text_generation_server.models.kv_form import tell_narrow
from text_generation_server.models.positions import log_positions
from text_generation_server.specs.decoder import DIFFERENT_HEAD, PositionLimit
from text_generation_server.weights.checkpoint import SavedCheckpoint
from text_generation_server.weights.files import weight_files

_GROWING_ROPES = ("dynamic", "longrope", "su")


def load_generic(
    directory: Path,
    model_type: str,
    dtype: torch.dtype,
    device: torch.device,
    attention: str,
    trust_remote_code: bool,
    progress: Callable[[int, int], None],
    narrow: torch.dtype | None = None,
) -> GenericModel:
    """The model, on one rank.

    `trust_remote_code` lets transformers run Python code of the directory. narrow: see `PagedSpec`; the model is tried
    without it.

    Raises:
        UnsupportedModel: transformers cannot build it, or it attends in a way that ours does not; says which.
    """
    register()
    config = _read_config(directory, model_type, trust_remote_code)
    weights, stored = weight_files(directory), SavedCheckpoint(directory)
    config.transformers_weights = weights.entry  # else it has a rule of its own for which files these are
    model = _fill(directory, config, stored, dtype, trust_remote_code).to(device).eval()
    size = sum((directory / name).stat().st_size for name in weights.names)
    note = Note()
    attach(model, note)
    layers = config.get_text_config().num_hidden_layers
    shape = _shape(note, attention_calls(model, note, device, layers), dtype, device)
    served = _served(model, note, shape, attention)
    log_positions(_positions(model))
    check_answers(model, served)
    if narrow is not None:
        served = _served(model, note, replace(shape, state=replace(shape.state, narrow=narrow)), attention)
        tell_narrow(served.kv, scaled=False)
    progress(size, size)
    logger.warning(
        "model_type {} has no architecture of its own here: it runs through transformers' own code with our paged "
        "attention, sampling and batching. It cannot be cut over several shards, and its linears are neither fused "
        "nor packed, so that it is slower than a model of docs/models.md",
        config.model_type,
    )
    return served


def _read_config(directory: Path, model_type: str, trust_remote_code: bool) -> Any:
    try:
        config = AutoConfig.from_pretrained(
            directory, trust_remote_code=trust_remote_code, local_files_only=True, attn_implementation=PROBING
        )
    except Exception as error:  # unknown types, refused remote code, bad values: all raise differently
        raise UnsupportedModel(
            f"{directory}: model_type {model_type!r} has no architecture here, and transformers makes none: {error}"
        ) from error
    if config.is_encoder_decoder:
        raise UnsupportedModel(f"model_type {config.model_type} has an encoder, expected a decoder-only model")
    ropes = str(getattr(config.get_text_config(), "rope_parameters", None) or "")
    for kind in _GROWING_ROPES:
        if f"'{kind}'" in ropes:
            raise UnsupportedModel(
                f"model_type {config.model_type} has {kind} rotary scaling, which transformers' code applies to all "
                "sequences of a step alike, expected one that does not depend on lengths"
            )
    return config


def _fill(directory: Path, config: Any, stored: SavedCheckpoint, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    try:
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            directory,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            local_files_only=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except KeyError as error:  # some choose their own classes by the name of an attention
        what = "its code does not take another attention" if PROBING in error.args else f"{error} is not known to it"
        raise UnsupportedModel(f"{directory}: transformers cannot load this model: {what}") from error
    except Exception as error:
        raise UnsupportedModel(f"{directory}: transformers cannot load this model: {error}") from error
    model, found = loaded
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        keys = sorted(key for key in map(str, found.get(kind) or ()) if not stored.is_derived(key))
        if keys:
            raise UnsupportedModel(f"{directory}: {len(keys)} {kind.replace('_', ' ')} ({', '.join(keys[:4])})")
    _warn_of_another_head(model)
    return model


def _warn_of_another_head(model: Any) -> None:
    """transformers leaves a head apart that differs from the embedding it is said to be tied to; say so in our log."""
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    is_tied = getattr(model.config.get_text_config(), "tie_word_embeddings", False)
    if is_tied and head is not None and head.weight is not embedding.weight:
        names = {id(parameter): name for name, parameter in model.named_parameters()}
        logger.warning(DIFFERENT_HEAD, names.get(id(head.weight), "head"), names.get(id(embedding.weight), "embedding"))


def _positions(model: Any) -> PositionLimit | None:
    return read_max_positions(ConfigDict(model.config.get_text_config().to_dict()), *POSITION_KEYS)


def _shape(note: Note, calls: list[Call], dtype: torch.dtype, device: torch.device) -> AttentionShape:
    """What the model asks of a backend; which of its variants each layer has is put into the note."""
    heads, kv_heads, head_dim, _ = calls[0].shape
    variants = [AttentionVariant(call.window, None, call.softcap) for call in calls]
    distinct = list(dict.fromkeys(variants))
    note.layers = tuple(
        LayerAttention(call.layer, distinct.index(variant), call.scale)
        for call, variant in zip(calls, variants, strict=True)
    )
    return AttentionShape(tuple(distinct), heads, PagedSpec(len(calls), kv_heads, head_dim, dtype, device))


def _served(model: Any, note: Note, shape: AttentionShape, attention: str) -> GenericModel:
    positions = _positions(model)
    backend = create_backend(attention, shape)
    note.padding = backend.head_dim - shape.state.head_dim
    return GenericModel(
        model=model,
        note=note,
        kv=replace(shape.state, slot_major=backend.slot_major, head_dim=backend.head_dim),
        attention=backend,
        vocab_size=model.config.get_text_config().vocab_size,
        max_positions=None if positions is None else positions.tokens,
        picks_logits="logits_to_keep" in inspect.signature(model.forward).parameters,
    )
