"""What keys and values are kept as: by what was asked for, what a checkpoint says, and which scales it has for them."""

from collections.abc import Mapping
from dataclasses import replace
from math import isfinite

import torch
from loguru import logger

from text_generation_server.cache.narrow import UNSCALED, KVScales
from text_generation_server.cache.paged import PagedSpec
from text_generation_server.choices import KvCacheDtype
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.quantised import says_narrow_keys
from text_generation_server.errors import UnsupportedModel
from text_generation_server.weights.checkpoint import Checkpoint

NARROW: Mapping[KvCacheDtype, torch.dtype] = {
    KvCacheDtype.FP8_E4M3FN: torch.float8_e4m3fn,
    KvCacheDtype.FP8_E4M3: torch.float8_e4m3fn,
    KvCacheDtype.FP8_E5M2: torch.float8_e5m2,
}

FIRST_WITH_E4M3 = (8, 9)
"""The compute capability of the first GPUs with instructions for it."""


def narrow_type(asked: KvCacheDtype, found: ConfigDict | None, device: torch.device) -> torch.dtype | None:
    """The type of 8 bits, None to keep keys and values as they are computed.

    found: what is written of the checkpoint's quantisation. Raises UnsupportedModel for a scheme that is not read, and
    for a type that the device does not know.
    """
    says = found is not None and says_narrow_keys(found)
    narrow = NARROW.get(asked, torch.float8_e4m3fn if says else None)
    if narrow is torch.float8_e4m3fn and device.type == "cuda" and torch.cuda.is_available():
        has = torch.cuda.get_device_capability(device)
        if has < FIRST_WITH_E4M3:
            raise UnsupportedModel(
                f"keys and values of {KvCacheDtype.FP8_E4M3FN} need a GPU of compute capability {FIRST_WITH_E4M3}, "
                f"this one has {has}: use --kv-cache-dtype {KvCacheDtype.FP8_E5M2}"
            )
    return narrow


def read_scales(checkpoint: Checkpoint, projections: tuple[str, ...], narrow: bool) -> KVScales:
    """Those of a layer, 1 where the checkpoint has none; where no cache is narrow, they are passed over.

    projections: names of its linears of queries, keys and values, or of the one for all. Scales are named after the
    module around them (compressed-tensors; `kv_scale`, one for both, AutoFP8) or after the linears (ModelOpt, older
    compressed-tensors). Raises UnsupportedModel.
    """
    module = projections[0].rpartition(".")[0]
    keys, values = (projections[0], projections[0]) if len(projections) < 3 else projections[1:]
    names = (
        (f"{module}.k_scale", f"{module}.v_scale"),
        (f"{keys}.k_scale", f"{values}.v_scale"),
        (f"{keys}.output_scale", f"{values}.output_scale"),
        (f"{module}.kv_scale", f"{module}.kv_scale"),
    )
    pairs = [pair for pair in names if all(checkpoint.has(name) for name in pair)]
    for name in (f"{module}.q_scale", f"{module}.prob_scale", *(name for pair in pairs for name in pair)):
        checkpoint.leave(name)
    for name in (f"{module}.k_zero_point", f"{module}.v_zero_point"):
        checkpoint.leave_zeros(name)
    return KVScales(*(_scale(checkpoint, name) for name in pairs[0])) if pairs and narrow else UNSCALED


def _scale(checkpoint: Checkpoint, name: str) -> float:
    scale = float(checkpoint.view(name, (1,), others=((),)))
    if not (isfinite(scale) and scale > 0):
        raise UnsupportedModel(f"{name} is {scale}, expected a number above 0")
    return scale


def tell_narrow(state: PagedSpec, scaled: bool) -> None:
    """Log what a narrow cache saves. scaled: by the checkpoint."""
    if state.narrow is None:
        return
    plain = replace(state, narrow=None).bytes_per_slot
    logger.info(
        "Keys and values are kept as {}, with {}: {} bytes a token and rank instead of {}, so that the cache holds "
        "{:.2f} times the tokens",
        *(str(state.narrow).removeprefix("torch."), "the checkpoint's scales" if scaled else "scales of 1"),
        *(state.bytes_per_slot, plain, plain / state.bytes_per_slot),
    )
