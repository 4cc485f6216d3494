"""A router that really listens, over fake shards, in the test's own event loop."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx

from mocks.fake_shard import CHAT_TEMPLATE, FakeShard, next_letter, save_tokenizer
from text_generation_router.serve import serve
from text_generation_router.settings import Settings

_NO_LIMITS = httpx.Limits(max_connections=None)


@dataclass
class RunningRouter:
    """Where it listens, its shards, and how to ask it."""

    url: str
    shards: Sequence[FakeShard]
    client: httpx.AsyncClient
    stop: asyncio.Event
    exit_code: "asyncio.Future[int]"

    @property
    def shard(self) -> FakeShard:
        return self.shards[0]

    async def generate(self, inputs: str, **parameters: Any) -> httpx.Response:
        """POST /generate."""
        return await self.client.post("/generate", json={"inputs": inputs, "parameters": parameters})

    async def metric(self, line: str) -> float:
        """The value of a metric, by its name and labels."""
        lines = (await self.client.get("/metrics")).text.splitlines()
        return next(float(found.rpartition(" ")[2]) for found in lines if found.rpartition(" ")[0] == line)

    async def until_idle(self) -> None:
        """Wait until nothing runs any more and all cache blocks are back."""
        async with asyncio.timeout(5):
            while await self.metric("tgi_cache_blocks_used") or self.shard.live_rows():
                await asyncio.sleep(0.01)

    def sent(self) -> list[Any]:
        """The requests that the shard got, in order."""
        return [request for name, call in self.shard.calls if name == "Prefill" for request in call.batch.requests]

    def text(self, inputs: str, count: int) -> str:
        """What the shard must make of a prompt."""
        tokenizer = self.shard.tokenizer
        ids, text = list(tokenizer.encode(inputs).ids), ""
        for _ in range(count):
            text += next_letter(ids)
            ids.append(tokenizer.token_to_id(text[-1]))
        return text


@asynccontextmanager
async def running_router(
    directory: Path,
    world_size: int = 1,
    keep_alive_s: float = 15.0,
    options: dict[str, Any] | None = None,
    template: str | None = CHAT_TEMPLATE,
    added: Sequence[str] = (),
    **shard: Any,
) -> AsyncIterator[RunningRouter]:
    """Start shards with the switches `shard` and a router with `options`; afterwards nothing may have been violated.

    template: the model's chat template. added: tokens of its tokenizer beside the usual ones.
    """
    tokenizer = save_tokenizer(directory, template, added)
    shards = [FakeShard(tokenizer, directory / "s", rank, world_size, **shard) for rank in range(world_size)]
    settings = replace(router_settings(directory, directory / "s-0"), **(options or {}))
    async with AsyncExitStack() as serving:
        for one in shards:
            await serving.enter_async_context(one)
        async with listening(settings, keep_alive_s) as (client, stop, exit_code):
            try:
                yield RunningRouter(str(client.base_url), shards, client, stop, exit_code)
            finally:
                for one in shards:
                    one.running.set()
    assert [violation for one in shards for violation in one.violations] == []


@asynccontextmanager
async def listening(
    settings: Settings, keep_alive_s: float = 15.0
) -> AsyncIterator[tuple[httpx.AsyncClient, asyncio.Event, "asyncio.Future[int]"]]:
    """A router with these settings: a client of it, what stops it, and its exit code."""
    stop = asyncio.Event()
    exit_code = asyncio.ensure_future(serve(settings, stop, keep_alive_s))
    url = f"http://127.0.0.1:{settings.port}"
    try:
        async with httpx.AsyncClient(base_url=url, timeout=20, limits=_NO_LIMITS, verify=False) as client:
            await _until_open(client, exit_code)
            yield client, stop, exit_code
    finally:
        stop.set()
        await asyncio.wait((exit_code,), timeout=10)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


async def events(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The JSON of a stream's events, comments left out."""
    async for line in response.aiter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def router_settings(directory: Path, shard: Path) -> Settings:
    """Settings of a router with a directory's tokenizer before the shard at a socket."""
    return Settings(
        hostname="127.0.0.1",
        port=free_port(),
        prometheus_port=0,
        master_shard_uds_path=str(shard),
        tokenizer_name=str(directory),
        max_batch_prefill_tokens=256,
    )


async def _until_open(client: httpx.AsyncClient, exit_code: "asyncio.Future[int]") -> None:
    while not exit_code.done():
        asking = asyncio.ensure_future(client.get("/health"))
        await asyncio.wait((asking, exit_code), return_when=asyncio.FIRST_COMPLETED)  # others may have the port
        if asking.done() and not isinstance(asking.exception(), httpx.ConnectError):
            asking.result()
            return
        asking.cancel()
        await asyncio.sleep(0.01)
    exit_code.result()
    raise RuntimeError("the router did not start")
