"""An HTTP server that answers as a script says: real sockets, no model. Knows no router.

`python -m mocks.event_server PORT STEP_S` streams tokens on all endpoints, to see what a client can follow.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

EVENTS = "text/event-stream"


@dataclass(frozen=True)
class Answer:
    """pieces: written one by one, step_s apart; as they are if `raw`, else as chunks. cut: hang up, not end."""

    pieces: Sequence[bytes]
    status: int = 200
    content_type: str = EVENTS
    step_s: float = 0.0
    raw: bool = False
    cut: bool = False


Script = Callable[[str, dict[str, Any]], Answer]
"""From a path and a body to an answer."""


@dataclass
class EventServer:
    """Where it listens, and what it was asked: paths with bodies, in order."""

    script: Script
    url: str = ""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    connections: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, kept."""
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r\n")[0] or 0)
        path, body = head.split(" ")[1], json.loads(await reader.readexactly(length) or "{}")
        self.asked.append((path, body))
        answer = self.script(path, body)
        if not answer.raw:
            kind = f"content-type: {answer.content_type}\r\ntransfer-encoding: chunked"
            writer.write(f"HTTP/1.1 {answer.status} Whatever\r\n{kind}\r\n\r\n".encode())
        for piece in answer.pieces:
            writer.write(piece if answer.raw else b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(answer.step_s)
        if not (answer.raw or answer.cut):
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return not (answer.raw or answer.cut)


@asynccontextmanager
async def event_server(script: Script, port: int = 0) -> AsyncIterator[EventServer]:
    """Serve on a port of this machine."""
    found = EventServer(script)
    server = await asyncio.start_server(found.serve, "127.0.0.1", port)
    found.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield found
    finally:
        server.close()


def event(content: Any) -> bytes:
    """A server-sent event of JSON."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def good(path: str, body: dict[str, Any], step_s: float = 0.0) -> Answer:
    """What a server of one model answers; an answer has as many tokens as were asked for, a prompt one a word."""
    if path == "/v1/models":
        return Answer([json.dumps({"data": [{"id": "the-model"}]}).encode()], content_type="application/json")
    if path == "/generate_stream":
        return Answer(_native(body), step_s=step_s)
    if path.startswith("/v1/"):
        return Answer(_openai(body), step_s=step_s)
    return Answer([], status=404)


def _native(body: dict[str, Any]) -> list[bytes]:
    count, words = body["parameters"]["max_new_tokens"], len(body["inputs"].split())
    token = {"id": 7, "text": " word", "logprob": -0.5, "special": False}
    events = [{"index": i + 1, "token": token, "generated_text": None, "details": None} for i in range(count)]
    details = {"finish_reason": "length", "generated_tokens": count, "seed": None, "input_length": words}
    events[-1] |= {"generated_text": " word" * count, "details": details}
    return list(map(event, events))


def _openai(body: dict[str, Any]) -> list[bytes]:
    count, chat = body["max_tokens"], "messages" in body
    prompt = body["messages"][0]["content"] if chat else body["prompt"]
    choice: dict[str, Any] = {"delta": {"content": " word"}} if chat else {"text": " word"}
    choices = [{"index": 0, **choice, "finish_reason": None} for _ in range(count)]
    choices[-1]["finish_reason"] = "length"
    if chat:
        choices.insert(0, {"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None})
    usage = {"prompt_tokens": len(prompt.split()), "completion_tokens": count}
    events = [*({"choices": [one], "usage": None} for one in choices), {"choices": [], "usage": usage}]
    return [*map(event, events), b"data: [DONE]\n\n"]


if __name__ == "__main__":
    import uvloop

    async def main(port: int, step_s: float) -> None:
        async with event_server(lambda path, body: good(path, body, step_s), port):
            await asyncio.Event().wait()

    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
