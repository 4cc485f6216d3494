"""A model's chat template: conversations as prompts. Knows neither HTTP nor tokens."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from jinja2 import Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from text_generation_router.errors import InvalidInput, TemplateFailed


class ChatTemplate:
    """Renders with the template of tokenizer_config.json."""

    def __init__(self, template: Template) -> None:
        self._template = template

    @classmethod
    def load(cls, folder: Path, override: str | None) -> Self | None:
        """The template of a model directory, None if it has none."""
        source = override or json.loads((folder / "tokenizer_config.json").read_text()).get("chat_template")
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
        environment.globals["raise_exception"] = _raise
        return cls(environment.from_string(source)) if source else None

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        extra: Mapping[str, Any] = {},
    ) -> str:
        """The prompt. Raises InvalidInput with the template's own message."""
        plain = [{**message, "content": _text(message.get("content"))} for message in messages]
        try:
            text = self._template.render(extra, messages=plain, add_generation_prompt=add_generation_prompt)
        except TemplateError as error:
            raise TemplateFailed(str(error)) from error
        last = plain[-1]["content"].strip()
        return text[: text.rindex(last) + len(last)] if continue_final_message else text


def _raise(text: str) -> None:
    raise TemplateError(text)


def _text(content: Any) -> str:
    parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
    if kind := next((part["type"] for part in parts if part["type"] != "text"), None):
        raise InvalidInput(f"`messages` has content with a part of type {kind!r}, which is not taken")
    return "".join(part["text"] for part in parts)
