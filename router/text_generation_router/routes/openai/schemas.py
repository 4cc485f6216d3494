"""Request bodies of OpenAI's API: keys, types and defaults, and the keys that would have to act but cannot.

Source: OpenAI's API reference; grammars are text-generation-inference's, `chat_template_kwargs` is vLLM's. Other keys
tell nothing about the answer, and are ignored.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import ConfigDict, Field

from text_generation_router.routes.openai.sampling_fields import SamplingFields
from text_generation_router.routes.openai.structured import StructuredFields
from text_generation_router.schemas import Body, Count, NamedSchema, RegexGrammar, TokenIds

_OFF = (None, False)
_NONE: tuple[Any, ...] = (None, [], {})


class TextFormat(Body):
    """Any text."""

    type: Literal["text"]


class JsonFormat(Body):
    """Any JSON object; with a schema, as an object or as its text, what text-generation-inference takes."""

    type: Literal["json", "json_object"]
    value: Any = None


class SchemaFormat(Body):
    """A named JSON schema, where OpenAI has it or where text-generation-inference has it."""

    type: Literal["json_schema"]
    json_schema: NamedSchema | None = None
    value: NamedSchema | None = None


ResponseFormat = Annotated[TextFormat | JsonFormat | SchemaFormat | RegexGrammar, Field(discriminator="type")]


class StreamOptions(Body):
    """`stream_options`."""

    include_usage: bool | None = None


class GenerationBody(SamplingFields, StructuredFields):
    """What chats and completions share.

    CANNOT: keys that would have to change the answer and cannot, with the values that ask for nothing.
    """

    model_config = ConfigDict(extra="allow")

    CANNOT: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "allowed_token_ids": _NONE,
        "bad_words": _NONE,
        "guided_whitespace_pattern": (None,),
        "include_stop_str_in_output": _OFF,
        "prompt_logprobs": (None, 0),
        "skip_special_tokens": (None, True),
        "truncate_prompt_tokens": (None, -1),
        "use_beam_search": _OFF,
    }

    model: str | None = None
    max_tokens: Count | None = None
    n: Count | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    adapter_id: str | None = None
    lora_id: str | None = None

    @property
    def include_usage(self) -> bool:
        """Whether a stream tells what it has used."""
        return bool(self.stream_options and self.stream_options.include_usage)


class CompletionBody(GenerationBody):
    """Body of `/v1/completions`."""

    CANNOT: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **GenerationBody.CANNOT,
        "suffix": (None, ""),
    }

    prompt: str | list[str] | TokenIds | list[TokenIds]
    echo: bool | None = None
    logprobs: Count | None = None
    best_of: Count | None = None


class ChatBody(GenerationBody):
    """Body of `/v1/chat/completions`. What keys messages have is between clients and templates."""

    CANNOT: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        **GenerationBody.CANNOT,
        "tools": _NONE,
        "tool_choice": (None, "none", "auto"),
        "functions": _NONE,
        "function_call": (None, "none", "auto"),
        "reasoning_effort": (None,),
        "modalities": (None, ["text"]),
        "audio": (None,),
        "prediction": (None,),
        "web_search_options": (None,),
    }

    messages: list[dict[str, Any]]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    chat_template_kwargs: dict[str, Any] | None = None
