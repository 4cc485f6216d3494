"""Request bodies of OpenAI's API: keys, types and defaults, and the keys that would have to act but cannot.

Source: OpenAI's API reference; grammars and `tool_prompt` are those of text-generation-inference,
`chat_template_kwargs` is vLLM's. Other keys tell nothing about the answer, and are ignored.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from text_generation_router.routes.openai.sampling_fields import SamplingFields
from text_generation_router.routes.openai.structured import StructuredFields
from text_generation_router.routes.refusing import NONE, OFF, RefusingBody
from text_generation_router.schemas import Body, Count, NamedSchema, RegexGrammar, ServingFields, TokenIds


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


class GenerationBody(SamplingFields, StructuredFields, ServingFields, RefusingBody):
    """What chats and completions share."""

    CANNOT: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "allowed_token_ids": NONE,
        "bad_words": NONE,
        "guided_whitespace_pattern": (None,),
        "include_stop_str_in_output": OFF,
        "prompt_logprobs": (None, 0),
        "skip_special_tokens": (None, True),
        "truncate_prompt_tokens": (None, -1),
        "use_beam_search": OFF,
    }

    model: str | None = None
    max_tokens: Count | None = None
    n: Count | None = None
    response_format: ResponseFormat | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

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
        "functions": NONE,
        "function_call": (None, "none", "auto"),
        "modalities": (None, ["text"]),
        "audio": (None,),
        "prediction": (None,),
        "web_search_options": (None,),
    }

    messages: list[dict[str, Any]]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Count | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    tool_prompt: str | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None
