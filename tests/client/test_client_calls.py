"""Both clients against a running HTTP server: what they send, what they read, what they raise."""

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing, closing
from typing import Any, Protocol

import httpx
import pytest

from text_generation import AsyncClient, Client, errors
from text_generation.types import FinishReason, Grammar, GrammarType, Response, StreamResponse


class Server(Protocol):
    """The scripted server of conftest.py."""

    url: str
    endless: bool
    bodies: list[dict[str, Any]]
    headers: list[dict[str, str]]
    hung_up: Any

    def answer(self, content: object, status: int = 200) -> None: ...
    def text(self, content: str, status: int) -> None: ...
    def stream(self, *chunks: bytes) -> None: ...


Generate = Callable[..., Response]
Stream = Callable[..., list[StreamResponse]]

TOKEN = {"id": 5, "text": " Paris", "logprob": -0.25, "special": False}
DETAILS = {"finish_reason": "length", "generated_tokens": 1, "seed": None, "prefill": [], "tokens": [TOKEN]}
ANSWER = {"generated_text": " Paris", "details": DETAILS}
LAST = {"finish_reason": "eos_token", "generated_tokens": 2, "seed": 7, "input_length": 3}


def _event(text: str, index: int = 1, **more: object) -> bytes:
    content = {"index": index, "token": {**TOKEN, "text": text}, "generated_text": None, "details": None, **more}
    return b"data: " + json.dumps(content, ensure_ascii=False).encode() + b"\n\n"


def _last(text: str, index: int = 2) -> bytes:
    return _event(text, index, generated_text="whole text", details=LAST)


def _sync_generate(url: str, *args: Any, **options: Any) -> Response:
    return Client(url, headers={"authorization": "Bearer k"}, cookies={"crumb": "1"}).generate(*args, **options)


def _async_generate(url: str, *args: Any, **options: Any) -> Response:
    client = AsyncClient(url, headers={"authorization": "Bearer k"}, cookies={"crumb": "1"})
    return asyncio.run(client.generate(*args, **options))


def _sync_stream(url: str, *args: Any, **options: Any) -> list[StreamResponse]:
    return list(Client(url).generate_stream(*args, **options))


def _async_stream(url: str, *args: Any, **options: Any) -> list[StreamResponse]:
    async def collect() -> list[StreamResponse]:
        return [event async for event in AsyncClient(url).generate_stream(*args, **options)]

    return asyncio.run(collect())


@pytest.fixture(params=[_sync_generate, _async_generate], ids=["sync", "async"])
def generate(request: pytest.FixtureRequest) -> Generate:
    """`generate` of either client."""
    chosen: Generate = request.param
    return chosen


@pytest.fixture(params=[_sync_stream, _async_stream], ids=["sync", "async"])
def stream(request: pytest.FixtureRequest) -> Stream:
    """All events of `generate_stream` of either client."""
    chosen: Stream = request.param
    return chosen


def test_an_answer_is_a_list_of_one_or_an_object(server: Server, generate: Generate) -> None:
    for shape in ([ANSWER], ANSWER):
        server.answer(shape)
        response = generate(server.url, "The capital of France is", max_new_tokens=1)
        assert response.generated_text == " Paris"
        assert response.details.finish_reason is FinishReason.Length
        assert response.details.tokens[0].logprob == -0.25


def test_optional_details_are_read(server: Server, generate: Generate) -> None:
    prefill = [{"id": 1, "text": "a", "logprob": None}, {"id": 2, "text": "b", "logprob": -1.5}]
    loser = {"generated_text": "x", **DETAILS, "top_tokens": [[TOKEN]]}
    server.answer([{**ANSWER, "details": {**DETAILS, "prefill": prefill, "best_of_sequences": [loser], "new": 1}}])
    details = generate(server.url, "p", decoder_input_details=True).details
    assert [token.logprob for token in details.prefill] == [None, -1.5]
    assert details.best_of_sequences is not None
    assert details.best_of_sequences[0].generated_text == "x"


def test_headers_and_cookies_are_sent(server: Server, generate: Generate) -> None:
    server.answer([ANSWER])
    generate(server.url, "p")
    assert server.headers[0]["authorization"] == "Bearer k"
    assert server.headers[0]["cookie"] == "crumb=1"
    assert server.headers[0]["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("argument", "key", "value"),
    [
        ("do_sample", "do_sample", True),
        ("max_new_tokens", "max_new_tokens", 3),
        ("repetition_penalty", "repetition_penalty", 1.5),
        ("frequency_penalty", "frequency_penalty", -0.5),
        ("return_full_text", "return_full_text", True),
        ("seed", "seed", 0),
        ("stop_sequences", "stop", ["a", "b"]),
        ("temperature", "temperature", 0.5),
        ("top_k", "top_k", 4),
        ("top_p", "top_p", 0.75),
        ("truncate", "truncate", 9),
        ("typical_p", "typical_p", 0.25),
        ("watermark", "watermark", True),
        ("top_n_tokens", "top_n_tokens", 2),
        ("adapter_id", "adapter_id", "owner/adapter"),
        ("lora_id", "lora_id", "owner/adapter"),
    ],
)
def test_every_argument_arrives_under_its_key(
    server: Server, generate: Generate, stream: Stream, argument: str, key: str, value: object
) -> None:
    server.answer([ANSWER])
    generate(server.url, "p", **{argument: value})
    server.stream(_last("x"))
    stream(server.url, "p", **{argument: value})
    assert [body["parameters"][key] for body in server.bodies] == [value, value]
    assert [body["stream"] for body in server.bodies] == [False, True]
    assert all(body["inputs"] == "p" and body["parameters"]["details"] is True for body in server.bodies)


def test_arguments_of_whole_answers_only(server: Server, generate: Generate) -> None:
    server.answer([ANSWER])
    grammar = Grammar(type=GrammarType.Json, value={"type": "object"})
    generate(server.url, "p", True, 5, 2, decoder_input_details=True, grammar=grammar)
    parameters = server.bodies[0]["parameters"]
    assert (parameters["do_sample"], parameters["max_new_tokens"], parameters["best_of"]) == (True, 5, 2)
    assert parameters["decoder_input_details"] is True
    assert parameters["grammar"] == {"type": "json", "value": {"type": "object"}}
    assert "temperature" not in parameters, "what is not chosen is left to the server"


@pytest.mark.parametrize(
    "options",
    [
        {"best_of": 0},
        {"best_of": 2},
        {"best_of": 2, "do_sample": True, "seed": 1},
        {"repetition_penalty": 0},
        {"frequency_penalty": 2.5},
        {"seed": -1},
        {"temperature": 0.0},
        {"top_k": 0},
        {"top_p": 1.0},
        {"truncate": 0},
        {"typical_p": 0.0},
        {"top_n_tokens": 0},
        {"grammar": Grammar(type=GrammarType.Regex, value="")},
        {"prompt": ""},
    ],
    ids=str,
)
def test_what_breaks_a_rule_is_not_sent(server: Server, generate: Generate, options: dict[str, Any]) -> None:
    with pytest.raises(errors.ValidationError, match=r"`.*`"):
        generate(server.url, **{"prompt": "p", **options})
    assert server.bodies == []


@pytest.mark.parametrize(
    ("status", "error_type", "expected"),
    [
        (424, "generation", errors.GenerationError),
        (429, "overloaded", errors.OverloadedError),
        (422, "validation", errors.ValidationError),
        (500, "incomplete_generation", errors.IncompleteGenerationError),
        (200, "incomplete_generation_stream", errors.IncompleteGenerationError),
        (400, None, errors.BadRequestError),
        (403, None, errors.ShardNotReadyError),
        (404, None, errors.NotFoundError),
        (424, None, errors.ShardNotReadyError),
        (429, None, errors.RateLimitExceededError),
        (504, None, errors.ShardTimeoutError),
        (503, "healthcheck", errors.UnknownError),
    ],
)
def test_error_objects_become_exceptions(
    server: Server, generate: Generate, stream: Stream, status: int, error_type: str | None, expected: type[Exception]
) -> None:
    content = {"error": "the server's text", **({"error_type": error_type} if error_type else {})}
    server.answer(content, status)
    if status != 200:
        with pytest.raises(expected, match="the server's text"):
            generate(server.url, "p")
    else:
        server.stream(b"data: " + json.dumps(content).encode() + b"\n\n")
    with pytest.raises(expected, match="the server's text"):
        stream(server.url, "p")


def test_error_bodies_need_not_be_json(server: Server, generate: Generate, stream: Stream) -> None:
    server.text("Failed to parse the request body", 400)
    for call in (generate, stream):
        with pytest.raises(errors.BadRequestError, match="Failed to parse"):
            call(server.url, "p")
    server.text("", 401)
    with pytest.raises(errors.UnknownError, match="status 401"):
        generate(server.url, "p")
    server.text("not JSON", 200)
    with pytest.raises(errors.UnknownError, match="not JSON"):
        generate(server.url, "p")


def test_a_stream_yields_its_tokens(server: Server, stream: Stream) -> None:
    server.stream(_event("Hello", 1, top_tokens=[TOKEN]), b":\n\n", _last(" world"))
    events = stream(server.url, "p")
    assert [event.token.text for event in events] == ["Hello", " world"]
    assert [event.index for event in events] == [1, 2]
    assert events[0].top_tokens is not None
    assert events[0].generated_text is None
    assert events[1].generated_text == "whole text"
    assert events[1].details is not None
    assert (events[1].details.finish_reason, events[1].details.input_length) == (FinishReason.EndOfSequenceToken, 3)


def test_events_may_be_cut_anywhere_and_hold_any_character(server: Server, stream: Stream) -> None:
    text = "é🙂\u2028\u2029\x85\x0b"
    body = _event(text) + b": comment\r\n\r\n" + _last(text) + b"data: [DONE]\n\n"
    server.stream(*(body[i : i + 1] for i in range(len(body))))
    assert [event.token.text for event in stream(server.url, "p")] == [text, text]


@pytest.mark.parametrize("end", ["\n", "\r", "\r\n"])
def test_any_server_is_read_by_the_rule_of_events(server: Server, stream: Stream, end: str) -> None:
    """Byte by byte: a mark in front, each line end, data in several lines, other fields, no event without an end."""
    first, last = (json.dumps(json.loads(event[6:]), indent=1) for event in (_event("One"), _last("Two")))
    events = [
        "id: 7\nevent: token\n" + "\n".join(f"data:{line}" for line in text.split("\n")) for text in (first, last)
    ]
    text = "\ufeff" + "\n\n: data: no\n\n".join(events) + "\ndatabase: 1\ndata\n\ndata: [DONE]\n\ndata: cut off"
    body = text.replace("\n", end).encode()
    server.stream(*(body[i : i + 1] for i in range(len(body))))
    assert [event.token.text for event in stream(server.url, "p")] == ["One", "Two"]
    server.stream(body)
    assert [event.token.text for event in stream(server.url, "p")] == ["One", "Two"]


def test_an_error_event_ends_the_stream(server: Server, stream: Stream) -> None:
    failure = {"error": "Request failed during generation: gone", "error_type": "generation"}
    server.stream(_event("Hello"), b"data: " + json.dumps(failure).encode() + b"\n\n")
    with pytest.raises(errors.GenerationError, match="gone"):
        stream(server.url, "p")


def test_a_stream_without_its_last_token_is_incomplete(server: Server, stream: Stream) -> None:
    server.stream(_event("Hello"))
    with pytest.raises(errors.IncompleteGenerationError, match="before its last token"):
        stream(server.url, "p")


def test_an_event_that_is_no_json_is_shown(server: Server, stream: Stream) -> None:
    server.stream(b"data: <html>\n\n")
    with pytest.raises(errors.UnknownError, match="<html>"):
        stream(server.url, "p")


def test_a_closed_sync_stream_hangs_up(server: Server) -> None:
    server.stream(_event("again"))
    server.endless = True
    with closing(Client(server.url).generate_stream("p")) as events:
        assert next(events).token.text == "again"
    assert server.hung_up.wait(10)


async def test_a_closed_async_stream_hangs_up(server: Server) -> None:
    server.stream(_event("again"))
    server.endless = True
    async with aclosing(AsyncClient(server.url).generate_stream("p")) as events:
        assert (await anext(aiter(events))).token.text == "again"
    assert await asyncio.to_thread(server.hung_up.wait, 10)


async def test_one_async_client_serves_many_calls_at_once(server: Server) -> None:
    server.answer([ANSWER])
    client = AsyncClient(server.url)
    answers = await asyncio.gather(*(client.generate(f"p{number}") for number in range(8)))
    assert len(answers) == 8
    assert sorted(body["inputs"] for body in server.bodies) == [f"p{number}" for number in range(8)]


def test_an_unreachable_server_is_an_http_error(generate: Generate) -> None:
    with pytest.raises(httpx.ConnectError):
        generate("http://127.0.0.1:9", "p")
