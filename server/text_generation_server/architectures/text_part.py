"""The decoder within a model that reads images too: its own config.json is a part of that model's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from text_generation_server.architectures.llama import llama
from text_generation_server.architectures.mistral import mistral
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.names import CheckpointNames

WRAPPED = (
    ("language_model.model.", "model.language_model."),
    ("language_model.lm_head.", "lm_head."),
    ("vision_tower.", "vision_tower.vision_model."),
    ("vision_tower.", "model.vision_tower."),
    ("vision_tower.", "model.vision_tower.vision_model."),
    ("multi_modal_projector.", "model.multi_modal_projector."),
    ("image_newline", "model.image_newline"),
)
"""Beginnings of names of such models, and what libraries of other years write in their place."""


@dataclass(frozen=True, slots=True)
class TextPart:
    """An architecture as the text part of others. defaults: values of keys that are often left out there."""

    spec: Callable[[ConfigDict], DecoderSpec]
    defaults: Mapping[str, object]


LLAMA_PART = TextPart(
    llama,
    {
        "vocab_size": 32000,
        "hidden_size": 4096,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "intermediate_size": 11008,
        "max_position_embeddings": 2048,
    },
)


MISTRAL_PART = TextPart(
    mistral,
    {
        **LLAMA_PART.defaults,
        "intermediate_size": 14336,
        "num_key_value_heads": 8,
        "max_position_embeddings": 131072,
    },
)


def wrapped(names: CheckpointNames) -> CheckpointNames:
    """The names of a text part that is called `language_model`."""
    return replace(names.within("language_model.model.", "language_model.lm_head"), aliases=WRAPPED)


def with_defaults(config: ConfigDict, defaults: Mapping[str, object]) -> ConfigDict:
    """The config with values for what it leaves out."""
    return config.replaced(**{key: value for key, value in defaults.items() if config.get(key) is None})


def text_part(config: ConfigDict, parts: Mapping[str, TextPart], usual: str) -> DecoderSpec:
    """The spec of `text_config`, whose model_type is one of `parts`, `usual` if it says none.

    Whether the head is tied, the whole model's config says, if it does.

    Raises:
        UnsupportedModel: it is another one, or asks for something that is not supported.
    """
    text = config.section("text_config")
    kind = text.text("model_type", default=usual)
    if kind not in parts:
        raise config.refusal("text_config.model_type", kind, f"one of {', '.join(sorted(parts))}")
    if (tied := config.get("tie_word_embeddings")) is not None:
        text = text.replaced(tie_word_embeddings=tied)
    return parts[kind].spec(with_defaults(text, parts[kind].defaults))
