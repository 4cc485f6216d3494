"""Request bodies of Anthropic's API: keys, types and defaults, and the keys that would have to act but cannot.

Source: Anthropic's API reference, "Messages". Other keys (`metadata`, `service_tier`, `cache_control` of blocks …) tell
nothing about the answer, and are ignored.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from text_generation_router.routes.refusing import NONE, RefusingBody
from text_generation_router.schemas import Count, Float, ServingFields, TopK


class CountBody(RefusingBody):
    """Body of `/v1/messages/count_tokens`: what a prompt is made of."""

    CANNOT: ClassVar[Mapping[str, tuple[Any, ...]]] = {"container": NONE, "mcp_servers": NONE}

    model: str
    messages: list[dict[str, Any]]
    system: str | list[dict[str, Any]] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: dict[str, Any] | None = None
    output_config: dict[str, Any] | None = None


class MessagesBody(ServingFields, CountBody):
    """Body of `/v1/messages`."""

    max_tokens: Count
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    temperature: Float | None = None
    top_p: Float | None = None
    top_k: TopK | None = None
