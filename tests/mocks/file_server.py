"""A server of HTTP that answers by path with bytes made by the test, and remembers who asked for what."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field


def answer(body: bytes = b"", status: str = "200 OK", **headers: object) -> bytes:
    """A whole answer, with its length unless a header says otherwise."""
    named = {"content_type": "image/png", "content_length": len(body)} | headers
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([f"HTTP/1.1 {status}", *lines, "", ""]).encode() + body


@dataclass
class FileServer:
    """port: where it listens. asked: the heads of all requests. files: answers by path; none hangs."""

    port: int
    files: dict[str, bytes]
    asked: list[str] = field(default_factory=list)

    def url(self, path: str, host: str = "127.0.0.1") -> str:
        return f"http://{host}:{self.port}{path}"


@asynccontextmanager
async def file_server(files: Mapping[str, bytes]) -> AsyncIterator[FileServer]:
    """Serve `files` until the end of the block."""
    server = FileServer(0, dict(files))

    under_way: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        under_way.add(asyncio.current_task())
        with suppress(ConnectionError), closing(writer):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            server.asked.append(head)
            found = server.files.get(head.split(" ")[1])
            if found is None:
                await reader.read()  # until the client has enough
            else:
                writer.write(found)
                await writer.drain()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        await asyncio.gather(*filter(None, under_way))
