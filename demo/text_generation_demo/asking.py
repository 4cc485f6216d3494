"""Asks a server, as the demo's panes do. Knows HTTP through the client library only."""

from collections.abc import AsyncIterator
from typing import Protocol

import httpx

from text_generation import AsyncClient
from text_generation.errors import TextGenerationError

FAILURES = (TextGenerationError, httpx.HTTPError)
"""What asking may raise; the texts are for users."""


class Ask(Protocol):
    """Asks a question of an adapter, or of the model itself for None."""

    def __call__(self, question: str, adapter: str | None) -> AsyncIterator[str]:
        """The answer's pieces, about a token each. May raise one of `FAILURES`."""


class Server:
    """Satisfies `Ask` with chats. max_tokens: of an answer."""

    def __init__(self, url: str, max_tokens: int) -> None:
        self._client = AsyncClient(url, timeout=60)
        self._max_tokens = max_tokens

    async def __call__(self, question: str, adapter: str | None) -> AsyncIterator[str]:
        """See `Ask`."""
        chunks = await self._client.chat(
            [{"role": "user", "content": question}],
            max_tokens=self._max_tokens,
            temperature=0,
            adapter_id=adapter,
            stream=True,
        )
        async for chunk in chunks:
            for choice in chunk.choices:
                yield choice.delta.content or ""


def adapters_of(url: str) -> list[str]:
    """The names of the adapters that a server has. Raises one of `FAILURES`."""
    answer = httpx.get(f"{url}/lora_adapters", timeout=10).raise_for_status()
    return [adapter["name"] for adapter in answer.json()["adapters"]]
