"""Request body of `/v1/responses`: keys, types and defaults, and the keys that would have to act but cannot.

Source: OpenAI's API reference, "Responses". Other keys (`user`, `service_tier`, `prompt_cache_key` …) tell nothing
about the answer, and are ignored; `store` too, since nothing is kept.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from text_generation_router.routes.refusing import NONE, OFF, RefusingBody
from text_generation_router.schemas import Body, Count, Float, ServingFields


class TextConfig(Body):
    """`text`: the form of the answer."""

    format: dict[str, Any] | None = None


class ReasoningConfig(Body):
    """`reasoning`: how much."""

    effort: str | None = None


class ResponsesBody(ServingFields, RefusingBody):
    """Body of `/v1/responses`."""

    CANNOT: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "previous_response_id": (None,),
        "conversation": (None,),
        "background": OFF,
        "prompt": (None,),
        "truncation": (None, "disabled"),
        "max_tool_calls": (None,),
        "context_management": NONE,
        "moderation": NONE,
    }

    input: str | list[dict[str, Any]]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: Count | None = None
    temperature: Float | None = None
    top_p: Float | None = None
    top_logprobs: Count | None = None
    include: list[str] | None = None
    text: TextConfig | None = None
    reasoning: ReasoningConfig | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, str] | None = None
    stream: bool | None = None

    @property
    def logprobs(self) -> bool:
        """Whether the answer tells log-probabilities."""
        return "message.output_text.logprobs" in (self.include or ())
