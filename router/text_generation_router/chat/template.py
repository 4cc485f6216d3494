"""A model's chat template: conversations as the prompts that it was trained on. Knows neither HTTP nor token ids."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import jinja2
from jinja2.meta import find_undeclared_variables
from loguru import logger

from text_generation_router.chat.files import (
    DEFAULT,
    TOOL_USE,
    find_templates,
    read_config,
    read_template,
    special_tokens,
)
from text_generation_router.chat.messages import ContentFormat, Message, calls_tools, content_format, prepared
from text_generation_router.chat.prefill import cut_at_mark, mark_end
from text_generation_router.chat.sandbox import Sandbox
from text_generation_router.errors import ApiError, InvalidInput, StartError, TemplateFailed
from text_generation_router.options import is_path
from text_generation_server.errors import StartError as ServerStartError
from text_generation_server.errors import excerpt

_OURS = ("messages", "tools", "add_generation_prompt")
"""Variables of a template that have arguments of their own."""


@dataclass(frozen=True, slots=True)
class _Compiled:
    template: jinja2.Template
    form: ContentFormat
    variables: Set[str]


class ChatTemplate:
    """The template of a model, and the one that it may have for tools. May be used by any thread."""

    def __init__(self, texts: Mapping[str, str], tokens: Mapping[str, str]) -> None:
        """texts: by name, `default` among them. tokens: variables, such as `bos_token`.

        `text` is all of it, the one for tools included.
        """
        sandbox = Sandbox()
        self.text = "\n".join(texts[name] for name in (DEFAULT, TOOL_USE) if name in texts)
        self._tokens = tokens
        self._default = _compiled(DEFAULT, texts[DEFAULT], sandbox)
        self._for_tools = _compiled(TOOL_USE, texts[TOOL_USE], sandbox) if TOOL_USE in texts else self._default

    @property
    def broken(self) -> str | None:
        """What is wrong, if a template cannot be compiled; to render is then refused with the same words."""
        return next((one for one in (self._default, self._for_tools) if isinstance(one, str)), None)

    @property
    def shows_tools(self) -> bool:
        """Whether it tells the model which tools there are."""
        return isinstance(self._for_tools, _Compiled) and "tools" in self._for_tools.variables

    def mentions(self, name: str) -> bool:
        """Whether a name stands anywhere in it: of a variable, a key, or a role."""
        return name in self.text

    @classmethod
    def load(cls, folder: Path, override: str | None, tokenizer_config: Path | None = None) -> Self | None:
        """The template of a model directory, None if it has none. One that is broken is logged.

        override: a template, or the path of one, that is taken instead. tokenizer_config: a file that is read instead
        of the directory's tokenizer_config.json, and whose template goes before the directory's.
        Raises StartError for an override or a file that cannot be used.
        """
        try:
            config = read_config(folder, tokenizer_config)
            texts = find_templates(folder, config, tokenizer_config is not None)
            tokens = special_tokens(folder, config, tokenizer_config is not None)
            if override is not None:
                texts = {DEFAULT: _given(override)}
        except ServerStartError as error:
            raise StartError(str(error)) from error
        if DEFAULT not in texts:
            return None
        template = cls(texts, tokens)
        if template.broken and override is not None:
            raise StartError(f"--chat-template: {template.broken}")
        if template.broken:
            logger.warning("Chats will be refused: {}; --chat-template takes another one", template.broken)
        return template

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        extra: Mapping[str, Any] = MappingProxyType({}),
        image_mark: str = "",
    ) -> str:
        """The prompt, with every special token that it needs: add none to it.

        continue_final_message: end with the text of the last message, for the model to go on with, instead of the
        beginning of an answer. extra: further variables of the template. image_mark: as for `prepared`.
        Takes up to a second for the longest conversations, and is bounded (`sandbox.BUDGET`). Raises
        TemplateFailed with the template's own words, InvalidInput for what no template is shown.
        """
        if taken := [name for name in _OURS if name in extra]:
            raise InvalidInput(f"`chat_template_kwargs` cannot set `{taken[0]}`, which has a place of its own")
        if not messages:
            raise InvalidInput("`messages` cannot be empty")
        variables = {
            **self._tokens,
            "documents": None,
            **extra,
            "tools": None if tools is None else list(tools),
            "add_generation_prompt": add_generation_prompt and not continue_final_message,
        }
        compiled = self._default if tools is None else self._for_tools
        if isinstance(compiled, str):
            raise TemplateFailed(compiled)
        try:
            return _rendered(compiled, messages, variables, continue_final_message, image_mark)
        except ApiError:
            raise
        except Exception as error:  # templates raise what they like
            raise TemplateFailed(_reason(error)) from error


def _compiled(name: str, text: str, sandbox: Sandbox) -> _Compiled | str:
    """A template, or what is wrong with it."""
    try:
        parsed = sandbox.parse(text)
        return _Compiled(sandbox.from_string(text), content_format(parsed), find_undeclared_variables(parsed))
    except Exception as error:  # Python's own errors too: for a `break` without a loop
        return f"the {name} template cannot be compiled: {_reason(error)}"


def _rendered(
    compiled: _Compiled,
    messages: Sequence[Mapping[str, Any]],
    variables: Mapping[str, Any],
    continues: bool,
    image_mark: str,
) -> str:
    """The text, with arguments of tool calls as objects, or for a template that puts texts together as JSON."""

    def rendered(objects: bool) -> str:
        return _rendered_with(compiled, prepared(messages, compiled.form, objects, image_mark), variables, continues)

    try:
        return rendered(objects=True)
    except TypeError:
        if not calls_tools(messages):
            raise
        return rendered(objects=False)


def _rendered_with(compiled: _Compiled, made: list[Message], variables: Mapping[str, Any], continues: bool) -> str:
    last = mark_end(made) if continues else ""
    text = compiled.template.render({**variables, "messages": made})
    text.encode()  # half a character, which JSON can write, is no text
    return cut_at_mark(text, last) if continues else text


def _given(override: str) -> str:
    """An option's template. Raises StartError."""
    if not is_path(override):
        return override
    try:
        return read_template(Path(override))
    except ServerStartError as error:
        raise StartError(f"--chat-template is neither a template nor a file with one: {error}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, jinja2.TemplateSyntaxError):
        return excerpt(f"{error.message} (line {error.lineno})")
    return excerpt(str(error) or type(error).__name__)
