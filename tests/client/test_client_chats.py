"""Chats and completions of both clients against a scripted server, and what happens when it refuses."""

import asyncio
import json
from collections.abc import Callable
from typing import Any, Protocol

import httpx
import pytest

from text_generation import AsyncClient, Client, errors
from text_generation.retries import Attempts
from text_generation.types import ChatComplete, ChatCompletionChunk, Completion, Message, Tool


class Server(Protocol):
    """The scripted server of conftest.py."""

    url: str
    bodies: list[dict[str, Any]]
    paths: list[str]
    refusals: list[tuple[int, dict[str, str]]]

    def answer(self, content: object, status: int = 200) -> None: ...
    def stream(self, *chunks: bytes) -> None: ...


Ask = Callable[..., Any]

FACTS = {"id": "x-1", "created": 1, "model": "m", "system_fingerprint": "f"}
TURNS = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
CALL = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
DONE = b"data: [DONE]\n\n"


def _chat(message: dict[str, Any], reason: str = "stop") -> dict[str, Any]:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": reason}
    return {**FACTS, "object": "chat.completion", "choices": [choice], "usage": {"total_tokens": 3}, "new": 1}


def _chunk(delta: dict[str, Any], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    return _data({**FACTS, "object": "chat.completion.chunk", "choices": [choice]})


def _piece(text: str, reason: str | None = None) -> bytes:
    return _data({**FACTS, "object": "text_completion", "choices": [_text(text, reason)]})


def _text(text: str, reason: str | None) -> dict[str, Any]:
    return {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}


def _data(content: object) -> bytes:
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def _sync(method: str, url: str, *args: Any, retries: int = 2, **options: Any) -> Any:
    answer = getattr(Client(url, retries=retries), method)(*args, **options)
    return list(answer) if options.get("stream") else answer


def _async(method: str, url: str, *args: Any, retries: int = 2, **options: Any) -> Any:
    async def collect() -> Any:
        answer = await getattr(AsyncClient(url, retries=retries), method)(*args, **options)
        return [chunk async for chunk in answer] if options.get("stream") else answer

    return asyncio.run(collect())


@pytest.fixture(params=[_sync, _async], ids=["sync", "async"])
def ask(request: pytest.FixtureRequest) -> Ask:
    """A method of either client by its name, with all chunks if it streams."""
    chosen: Ask = request.param
    return chosen


def test_a_chat_is_answered(server: Server, ask: Ask) -> None:
    server.answer(_chat({"content": "Hello"}))
    answer: ChatComplete = ask("chat", server.url + "/", TURNS, 1.5, max_tokens=4, stop=["."])
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("Hello", "stop")
    assert answer.usage["total_tokens"] == 3 and answer.model_extra == {"new": 1}
    assert server.paths == ["/v1/chat/completions"]
    sent = {"model": "tgi", "messages": TURNS, "stream": False, "repetition_penalty": 1.5, "max_tokens": 4}
    assert server.bodies == [{**sent, "stop": ["."]}], "what is not chosen is left to the server"


def test_a_chat_comes_in_chunks(server: Server, ask: Ask) -> None:
    usage = _data({**FACTS, "object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 3}})
    server.stream(
        _chunk({"role": "assistant", "content": ""}), _chunk({"content": "Hel"}), _chunk({}, "stop"), usage, DONE
    )
    chunks: list[ChatCompletionChunk] = ask(
        "chat", server.url, TURNS, stream=True, more={"stream_options": {"include_usage": True}}
    )
    assert [chunk.choices[0].delta.content for chunk in chunks[:-1]] == ["", "Hel", None]
    assert chunks[2].choices[0].finish_reason == "stop" and chunks[3].usage == {"total_tokens": 3}
    assert server.bodies[0]["stream"] and server.bodies[0]["stream_options"] == {"include_usage": True}


def test_tools_pass_through_both_ways(server: Server, ask: Ask) -> None:
    server.answer(_chat({"content": None, "tool_calls": [CALL]}, "tool_calls"))
    answer = ask("chat", server.url, TURNS, tools=[TOOL], tool_choice="auto")
    (message,) = [choice.message for choice in answer.choices]
    assert message.tool_calls == [CALL]
    ask(
        "chat",
        server.url,
        [Message(role="user", content="Hi"), message, {"role": "tool", "tool_call_id": "call_1", "content": "Rain"}],
        tools=[Tool.model_validate(TOOL)],
        tool_choice={"type": "function", "function": {"name": "weather"}},
    )
    first, second = server.bodies
    assert first["tools"] == second["tools"] == [TOOL] and first["tool_choice"] == "auto"
    assert second["messages"][1] == {"role": "assistant", "tool_calls": [CALL]}
    assert second["messages"][2]["tool_call_id"] == "call_1"
    assert second["tool_choice"]["function"] == {"name": "weather"}


@pytest.mark.parametrize("listed", [True, False], ids=["OpenAI", "TGI 2"])
def test_calls_of_tools_come_in_chunks(server: Server, ask: Ask, listed: bool) -> None:
    begun = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "weather", "arguments": ""}}
    more = {"index": 0, "function": {"arguments": "{}"}}
    pieces = [{"tool_calls": [piece] if listed else piece} for piece in (begun, more)]
    server.stream(*map(_chunk, pieces), _chunk({}, "tool_calls"), DONE)
    deltas = [chunk.choices[0].delta.tool_calls for chunk in ask("chat", server.url, TURNS, stream=True)]
    calls = [delta[0] if listed else delta for delta in deltas[:2]]
    assert [call.function.arguments for call in calls] == ["", "{}"] and calls[0].function.name == "weather"


def test_prompts_are_completed(server: Server, ask: Ask) -> None:
    server.answer({**FACTS, "object": "text_completion", "choices": [_text(" b", "length")], "usage": None})
    whole: Completion = ask("completion", server.url, ["a"], max_tokens=1)
    server.stream(_piece(" b"), _piece("", "length"), DONE)
    pieces: list[Completion] = ask("completion", server.url, "a", stream=True)
    assert whole.choices[0].text == "".join(piece.choices[0].text for piece in pieces) == " b"
    assert pieces[-1].choices[0].finish_reason == "length"
    assert server.paths == ["/v1/completions"] * 2
    assert [body["prompt"] for body in server.bodies] == [["a"], "a"]


@pytest.mark.parametrize("name", ["adapter_id", "lora_id"])
def test_an_adapter_is_named_as_any_server_takes_it(server: Server, ask: Ask, name: str) -> None:
    server.answer(_chat({"content": "Arr"}))
    ask("chat", server.url, TURNS, **{name: "pirate"})
    assert (server.bodies[0]["model"], server.bodies[0][name]) == ("pirate", "pirate")


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (422, "validation", errors.ValidationError),
        (422, "template_error", errors.TemplateError),
        (422, "tool_error", errors.ToolError),
        (401, "unauthorized", errors.UnauthorizedError),
        (404, "model_not_found", errors.NotFoundError),
        (424, "generation", errors.GenerationError),
        (504, "timeout", errors.ShardTimeoutError),
        (500, "internal", errors.UnknownError),
    ],
)
def test_errors_in_openais_shape_have_their_type(
    server: Server, ask: Ask, status: int, code: str, expected: type[Exception]
) -> None:
    told = {"error": {"message": "the server's text", "type": "server_error", "param": None, "code": code}}
    server.answer(told, status)
    with pytest.raises(expected, match=r"^the server's text$"):
        ask("chat", server.url, TURNS)
    server.stream(_chunk({"content": "Hel"}), _data(told), DONE)
    with pytest.raises(expected, match=r"^the server's text$"):
        ask("chat", server.url, TURNS, stream=True)


def test_errors_in_streams_of_older_servers_have_their_status(server: Server, ask: Ask) -> None:
    server.stream(_data({"error": {"message": "full", "http_status_code": 429}}), DONE)
    with pytest.raises(errors.RateLimitExceededError, match="full"):
        ask("chat", server.url, TURNS, stream=True)


def test_a_stream_without_its_end_is_incomplete(server: Server, ask: Ask) -> None:
    server.stream(_chunk({"content": "Hel"}))
    with pytest.raises(errors.IncompleteGenerationError):
        ask("chat", server.url, TURNS, stream=True)


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_who_was_refused_comes_again(server: Server, ask: Ask, stream: bool) -> None:
    refusals = [(429, {"retry-after": "0"}), (503, {})]
    server.refusals = list(refusals)
    server.stream(_piece("b", "length"), DONE) if stream else server.answer(_chat({"content": "b"}))
    assert ask("completion" if stream else "chat", server.url, "a" if stream else TURNS, stream=stream)
    assert len(server.bodies) == 3 and server.bodies[0] == server.bodies[2]
    server.refusals = list(refusals)
    with pytest.raises(errors.UnknownError, match="status 503"):
        ask("chat", server.url, TURNS, stream=stream, retries=1)
    server.refusals = [(424, {})]
    with pytest.raises(errors.ShardNotReadyError):
        ask("chat", server.url, TURNS, stream=stream)
    assert len(server.bodies) == 6, "what has failed is not tried again"


def test_pauses_grow_until_the_attempts_are_used_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("text_generation.retries.FIRST_S", 1.0)
    attempts = Attempts(3)
    first, second = attempts.after_status(429, {}), attempts.after_error(httpx.ConnectError("refused"))
    assert first is not None and second is not None
    assert 0.5 <= first <= 1 <= second <= 2
    assert attempts.after_status(503, {"retry-after": "7"}) == 7
    assert attempts.after_status(503, {"retry-after": "7"}) is None
    assert Attempts(1).after_status(429, {"retry-after": "86400"}) == 30


@pytest.mark.parametrize("error", [httpx.ReadTimeout("t"), httpx.ReadError("r"), httpx.RemoteProtocolError("p")])
def test_what_the_server_may_have_begun_is_not_sent_again(error: httpx.TransportError) -> None:
    assert Attempts(3).after_error(error) is None
    assert Attempts(3).after_status(500, {}) is None
