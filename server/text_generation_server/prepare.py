"""Composition root of the command `prepare-kernels`: a model's kernels, compiled where there need be no GPU."""

import torch

from text_generation_server.architectures.registry import has_architecture, read_spec
from text_generation_server.attention.flashinfer import FlashInferAttention
from text_generation_server.attention.flashinfer_modules import compile_modules, embed_modules, modules_of
from text_generation_server.choices import Dtype, KvCacheDtype
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.config.quantised import quantisation_of
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.attention_shape import attention_shape
from text_generation_server.models.kv_form import narrow_type
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.weights.hub import CONFIGURATION
from text_generation_server.weights.layout import heads_of
from text_generation_server.weights.remote import HubSettings, Report
from text_generation_server.weights.source import locate


def prepare_kernels(
    model_id: str,
    revision: str | None,
    dtype: Dtype,
    kv_cache_dtype: KvCacheDtype,
    num_shard: int,
    hub: HubSettings,
    embed: bool,
    report: Report,
) -> None:
    """Compile what serving this model on CUDA devices needs, unless it is compiled; weights are not looked for.

    num_shard: ranks that it will be cut over. embed: put modules into the installed FlashInfer, too.

    Raises:
        StartError: the model has no use for FlashInfer, or FlashInfer or a compiler is missing or fails.
    """
    directory = locate(model_id, revision, hub, report, extension=CONFIGURATION)
    config = ConfigDict.load(directory / "config.json")
    if not has_architecture(config):
        raise UnsupportedModel(
            f"model_type {config.text('model_type')} runs through transformers' code, which tells its shape only when "
            "it runs: start a server with it once"
        )
    spec = read_spec(config)
    if not isinstance(spec, DecoderSpec):
        raise UnsupportedModel("FlashInfer is for decoders, and will not serve this model: there is nothing to compile")
    mine = heads_of(spec.attention.heads, spec.attention.kv_heads, 0, num_shard)
    cuda = torch.device("cuda")
    narrow = narrow_type(kv_cache_dtype, quantisation_of(directory, config), cuda)
    shape = attention_shape(spec, mine, getattr(torch, dtype), cuda, narrow)
    if (reason := FlashInferAttention.why_not(shape)) is not None:
        raise UnsupportedModel(f"FlashInfer will not serve this model: {reason}")
    modules = modules_of(shape)
    compile_modules(modules, report)
    if embed:
        embed_modules(modules, report)
    report(f"All {len(modules)} modules of FlashInfer for {model_id} are compiled")
