"""Asks one server, and keeps the time of everything that comes back. Knows no loads and no statistics."""

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.http.connection import Pool
from text_generation_benchmark.http.endpoints import Endpoint, Request, Wishes, error_of
from text_generation_benchmark.http.events import EventReader
from text_generation_benchmark.http.targets import Target
from text_generation_benchmark.http.timeline import Timeline
from text_generation_benchmark.http.wire import Response

_MESSAGE_LIMIT = 400


@dataclass(slots=True)
class Tally:
    """What has happened so far, for those who watch."""

    sent: int = 0
    done: int = 0
    failed: int = 0
    tokens: int = 0


class Client:
    """A server, as one that sends requests sees it."""

    def __init__(self, target: Target, wishes: Wishes, headers: Mapping[str, str], timeout_s: float) -> None:
        self.target = target
        self.wishes = wishes
        self.tally = Tally()
        self._timeout_s = timeout_s
        self._pool = Pool(target)
        fields = {"Host": target.host_header, "Accept": "text/event-stream", **headers}
        self._fields = "".join(f"{name}: {value}\r\n" for name, value in fields.items())

    async def generate(self, request: Request, due: float | None) -> Timeline:
        """Send a request now and follow its answer to the end. What goes wrong is the timeline's error.

        due: when it was to be sent, None for as soon as it is written down.
        """
        message = self._post(json.dumps(self.target.endpoint.body(request, self.wishes)).encode())
        sent = time.perf_counter()
        tally, timeline = self.tally, Timeline(sent if due is None else due, request.answer_tokens, sent)
        reader = _AnswerReader(self.target.endpoint, timeline, tally)
        tally.sent += 1
        try:
            async with asyncio.timeout(self._timeout_s):
                reader.finish(await self._pool.exchange(message, reader.feed))
        except TimeoutError:
            timeline.error = f"no complete answer within {self._timeout_s:g} s"
        except OSError as error:
            timeline.error = str(error) or type(error).__name__
        timeline.end = time.perf_counter()
        if timeline.error is None:
            tally.done += 1
        else:
            tally.failed += 1
        return timeline

    async def get(self, path: str) -> Any:
        """The JSON that the server has at a path beside the endpoint's, None if it has none. Raises BenchmarkError."""
        parts: list[bytes] = []
        message = f"GET {self.target.base}{path} HTTP/1.1\r\n{self._fields}\r\n".encode()
        try:
            async with asyncio.timeout(self._timeout_s):
                response = await self._pool.exchange(message, lambda _, body: parts.append(body))
        except OSError as error:
            raise BenchmarkError(
                f"nobody answers at {self.target.url} ({error or type(error).__name__}); "
                "start the server, or check host and port"
            ) from error
        try:
            return json.loads(b"".join(parts)) if response.status == 200 else None
        except ValueError:
            return None

    def close(self) -> None:
        """Hang up."""
        self._pool.close()

    def _post(self, body: bytes) -> bytes:
        head = f"POST {self.target.path} HTTP/1.1\r\n{self._fields}Content-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def introduce(client: Client) -> dict[str, Any]:
    """What the server says about itself; it must be there. Raises BenchmarkError.

    Where requests need a model's name and none is wished for, it is the first that the server lists, else `tgi`.
    """
    found = await client.get("/v1/models" if client.target.endpoint.openai else "/info")
    if client.target.endpoint.openai and not client.wishes.model:
        client.wishes = replace(client.wishes, model=_first_model(found))
    return {"url": client.target.url, "model": client.wishes.model or _model_id(found), "about": found}


def _first_model(found: Any) -> str:
    try:
        return str(found["data"][0]["id"])
    except (TypeError, KeyError, IndexError):
        return "tgi"


def _model_id(found: Any) -> str | None:
    return found.get("model_id") if isinstance(found, dict) else None


class _AnswerReader:
    """Reads a streamed answer into a timeline."""

    def __init__(self, endpoint: Endpoint, timeline: Timeline, tally: Tally) -> None:
        self._endpoint = endpoint
        self._timeline = timeline
        self._tally = tally
        self._events = EventReader()
        self._counted: int | None = None
        self._last = False
        self._refusal = b""
        self._texts: list[str] = []

    def feed(self, response: Response, body: bytes) -> None:
        """A piece of the body, as soon as it is there."""
        now = time.perf_counter()
        if response.status != 200:
            self._refusal += body
            return
        for data in self._events.feed(body):
            if data == b"[DONE]":
                self._last = True
            else:
                self._read(data, now)

    def finish(self, response: Response) -> None:
        """The body is complete."""
        timeline = self._timeline
        timeline.tokens = len(timeline.times) if self._counted is None else self._counted
        timeline.text = "".join(self._texts)
        if response.status != 200:
            timeline.error = f"HTTP {response.status}: {_message(self._refusal)}"
        elif timeline.error is None and not timeline.times:
            kind = response.headers.get("content-type", "none")
            timeline.error = f"an answer without text, of content type {kind}"
        elif timeline.error is None and not self._last:
            timeline.error = f"the stream ended after {len(timeline.times)} events, before the answer did"

    def _read(self, data: bytes, now: float) -> None:
        timeline = self._timeline
        try:
            event = json.loads(data)
            if (error := error_of(event)) is not None:
                timeline.error = error[:_MESSAGE_LIMIT]
                return
            reading = self._endpoint.read(event)
        except (ValueError, TypeError, AttributeError, LookupError):
            timeline.error = f"an event that {self._endpoint.path} does not have: {data[:_MESSAGE_LIMIT]!r}"
            return
        if reading.token:
            timeline.times.append(now)
            self._texts.append(reading.text)
            self._tally.tokens += 1
        self._last = self._last or reading.last
        if reading.prompt_tokens is not None:
            timeline.prompt_tokens = reading.prompt_tokens
        if reading.answer_tokens is not None:
            self._counted = reading.answer_tokens


def _message(body: bytes) -> str:
    """What a refusal says, whatever form it has."""
    text = body.decode(errors="replace").strip()
    try:
        found = json.loads(text)
        return (error_of(found) or str(found.get("message") or text))[:_MESSAGE_LIMIT]
    except (ValueError, AttributeError):
        return text[:_MESSAGE_LIMIT]
