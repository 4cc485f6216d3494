"""The decoder within a model that reads images too: its own config.json is a part of that model's."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.decoder import DecoderSpec

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


def text_part(config: ConfigDict, parts: Mapping[str, TextPart], usual: str) -> DecoderSpec:
    """The spec of `text_config`, whose model_type is one of `parts`, `usual` if it says none.

    Raises:
        UnsupportedModel: it is another one, or asks for something that is not supported.
    """
    text = config.section("text_config")
    kind = text.text("model_type", default=usual)
    if kind not in parts:
        raise config.refusal("text_config.model_type", kind, f"one of {', '.join(sorted(parts))}")
    given = {key: value for key, value in parts[kind].defaults.items() if text.get(key) is None}
    tied = text.get("tie_word_embeddings")
    given["tie_word_embeddings"] = config.get("tie_word_embeddings") if tied is None else tied
    return parts[kind].spec(text.replaced(**given))
