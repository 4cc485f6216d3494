"""Who reads which config.json: one line a model_type."""

from collections.abc import Callable, Mapping

from text_generation_server.models.architectures.bloom import bloom
from text_generation_server.models.architectures.falcon import falcon
from text_generation_server.models.architectures.gemma import gemma
from text_generation_server.models.architectures.gpt2 import gpt2
from text_generation_server.models.architectures.gpt_neox import gpt_neox
from text_generation_server.models.architectures.llama import llama
from text_generation_server.models.architectures.mistral import mistral
from text_generation_server.models.architectures.qwen2 import qwen2
from text_generation_server.models.configdict import ConfigDict
from text_generation_server.models.spec import DecoderSpec

ARCHITECTURES: Mapping[str, Callable[[ConfigDict], DecoderSpec]] = {
    "RefinedWeb": falcon,
    "RefinedWebModel": falcon,
    "bloom": bloom,
    "falcon": falcon,
    "gemma": gemma,
    "gpt2": gpt2,
    "gpt_neox": gpt_neox,
    "llama": llama,
    "mistral": mistral,
    "qwen2": qwen2,
}


def read_spec(config: ConfigDict) -> DecoderSpec:
    """The spec of a config.json.

    Raises:
        UnsupportedModel: the architecture, or something it asks for, is not supported.
    """
    model_type = config.text("model_type")
    if model_type not in ARCHITECTURES:
        raise config.refusal("model_type", model_type, f"one of {', '.join(ARCHITECTURES)}")
    config.reject_section("quantization_config", "quant_method")
    return ARCHITECTURES[model_type](config)
