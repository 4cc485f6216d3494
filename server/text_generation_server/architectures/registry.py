"""Who reads which config.json: one line a model_type."""

from collections.abc import Callable, Mapping

from text_generation_server.architectures.baichuan import baichuan
from text_generation_server.architectures.bamba import bamba
from text_generation_server.architectures.bloom import bloom
from text_generation_server.architectures.chatglm import chatglm
from text_generation_server.architectures.cohere import cohere, cohere2
from text_generation_server.architectures.dbrx import dbrx
from text_generation_server.architectures.falcon import falcon
from text_generation_server.architectures.gemma import gemma
from text_generation_server.architectures.gemma2 import gemma2, gemma3
from text_generation_server.architectures.gemma3_vision import gemma3_vision
from text_generation_server.architectures.glm import glm, glm4
from text_generation_server.architectures.gpt2 import gpt2
from text_generation_server.architectures.gpt_bigcode import gpt_bigcode
from text_generation_server.architectures.gpt_neox import gpt_neox
from text_generation_server.architectures.gpt_oss import gpt_oss
from text_generation_server.architectures.gptj import gptj
from text_generation_server.architectures.granite import granite
from text_generation_server.architectures.granite_hybrid import granite_hybrid
from text_generation_server.architectures.idefics import idefics
from text_generation_server.architectures.idefics2 import idefics2
from text_generation_server.architectures.idefics3 import idefics3
from text_generation_server.architectures.llama import llama
from text_generation_server.architectures.llava_next import llava_next
from text_generation_server.architectures.mamba import falcon_mamba, mamba
from text_generation_server.architectures.mamba2 import mamba2
from text_generation_server.architectures.mistral import mistral
from text_generation_server.architectures.mixtral import mixtral
from text_generation_server.architectures.mllama import mllama
from text_generation_server.architectures.mpt import mpt
from text_generation_server.architectures.olmo import olmo
from text_generation_server.architectures.olmo2 import olmo2
from text_generation_server.architectures.opt import opt
from text_generation_server.architectures.paligemma import paligemma
from text_generation_server.architectures.phi import phi
from text_generation_server.architectures.phi3 import phi3
from text_generation_server.architectures.qwen2 import qwen2
from text_generation_server.architectures.qwen2_vl import qwen2_5_vl, qwen2_vl
from text_generation_server.architectures.qwen3 import qwen3
from text_generation_server.architectures.qwen3_vl import qwen3_vl, qwen3_vl_moe
from text_generation_server.architectures.qwen_moe import qwen2_moe, qwen3_moe
from text_generation_server.architectures.smollm3 import smollm3
from text_generation_server.architectures.stablelm import stablelm
from text_generation_server.architectures.starcoder2 import starcoder2
from text_generation_server.architectures.t5 import mt5, t5
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.recurrent import RecurrentSpec
from text_generation_server.specs.seq2seq import Seq2SeqSpec

ModelSpec = DecoderSpec | RecurrentSpec | Seq2SeqSpec
"""What a model is. Which of them says who runs it; see `models/loading.py`."""

ARCHITECTURES: Mapping[str, Callable[[ConfigDict], ModelSpec]] = {
    "RefinedWeb": falcon,
    "RefinedWebModel": falcon,
    "baichuan": baichuan,
    "bamba": bamba,
    "bloom": bloom,
    "chatglm": chatglm,
    "cohere": cohere,
    "cohere2": cohere2,
    "dbrx": dbrx,
    "falcon": falcon,
    "falcon_mamba": falcon_mamba,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3_vision,
    "gemma3_text": gemma3,
    "glm": glm,
    "glm4": glm4,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neox": gpt_neox,
    "gpt_oss": gpt_oss,
    "gptj": gptj,
    "granite": granite,
    "granitemoehybrid": granite_hybrid,
    "idefics": idefics,
    "idefics2": idefics2,
    "idefics3": idefics3,
    "llama": llama,
    "llava_next": llava_next,
    "mamba": mamba,
    "mamba2": mamba2,
    "ministral": mistral,
    "mistral": mistral,
    "mixtral": mixtral,
    "mllama": mllama,
    "mpt": mpt,
    "mt5": mt5,
    "olmo": olmo,
    "olmo2": olmo2,
    "opt": opt,
    "paligemma": paligemma,
    "phi": phi,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen2_5_vl": qwen2_5_vl,
    "qwen2_moe": qwen2_moe,
    "qwen2_vl": qwen2_vl,
    "qwen3": qwen3,
    "qwen3_moe": qwen3_moe,
    "qwen3_vl": qwen3_vl,
    "qwen3_vl_moe": qwen3_vl_moe,
    "smollm3": smollm3,
    "smolvlm": idefics3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "t5": t5,
}


def has_architecture(config: ConfigDict) -> bool:
    """Whether there is one for this config.json."""
    return config.text("model_type") in ARCHITECTURES


def read_spec(config: ConfigDict) -> ModelSpec:
    """The spec of a config.json whose architecture there is.

    Raises:
        UnsupportedModel: something it asks for is not supported.
    """
    return ARCHITECTURES[config.text("model_type")](config)
