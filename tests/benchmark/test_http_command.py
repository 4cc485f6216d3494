"""The command against servers that really listen: our router, and one that answers as a test says."""

import asyncio
import json

import pytest

from mocks.event_server import Answer, event, event_server, good
from mocks.running_router import free_port, running_router
from text_generation_benchmark import cli

QUICK = ["--workload", "6/3", "--requests", "1", "--warmup", "0"]


@pytest.fixture
def benchmark(monkeypatch, capsys, directory):
    """Run the command beside the test's servers: its exit code, its JSON, and what it printed."""

    async def run(*arguments):
        place = directory / "found.json"
        command = ["text-generation-benchmark", "http", *arguments]
        monkeypatch.setattr("sys.argv", [*command, "--json", str(place)])
        code = await asyncio.to_thread(cli.main)
        return code, json.loads(place.read_text()) if place.exists() else None, capsys.readouterr()

    return run


async def test_our_router_is_measured(benchmark, directory):
    async with running_router(directory) as router:
        tokens = ["--tokenizer", str(directory), "--goodput", "e2e:60000"]
        cells = ["--workload", "20/7", "prefix:2x16+8/5", "--streams", "1", "3", "--requests", "4"]
        code, found, printed = await benchmark(router.url, *cells, "--repetitions", "2", "--raw", *tokens)
        [measured] = found["servers"]
        assert code == 0, printed.err
        assert measured["server"]["about"]["router"] == "text-generation-router"
        assert [(cell["workload"], cell["load"], cell["requests"], cell["failed"]) for cell in measured["cells"]] == [
            (workload, load, 8, 0) for workload in ("20/7", "prefix:2x16+8/5") for load in ("1 stream", "3 streams")
        ]
        assert [(cell["prompt_tokens"], cell["answer_tokens"]) for cell in measured["cells"]] == [
            (21, 7), (21, 7), (25, 5), (25, 5),  # the router's tokenizer puts a token before each text
        ]  # fmt: skip
        for request in (one for cell in measured["cells"] for run in cell["runs"] for one in run):
            assert request["due"] <= request["sent"] <= request["times"][0] <= request["times"][-1] <= request["end"]
            assert len(request["times"]) == request["asked_tokens"] == request["tokens"]
        assert measured["cells"][0]["goodput"]["share"] == 1
        assert "3 streams, 2 of 2: " in printed.err
        assert "### Time to first token, ms" in printed.out


async def test_a_failed_request_is_shown_and_fails_the_command(benchmark, directory):
    async with running_router(directory) as router:
        router.shard.failures["Decode"] = "out of luck"
        code, found, printed = await benchmark(router.url, *QUICK[:2], "--requests", "3", "--warmup", "0")
        [cell] = found["servers"][0]["cells"]
        assert (code, cell["requests"], cell["failed"]) == (1, 3, 1)
        assert "Request failed during generation" in cell["first_error"]
        assert "1 of 3 requests failed, the first: " in printed.out


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_chats_go_on_from_the_servers_answers(benchmark, path):
    async with event_server(good) as server:
        load = ["--workload", "chat:3x9+6/3", "--streams", "2", "--requests", "4", "--warmup", "0"]
        code, found, printed = await benchmark(server.url + path, *load)
        assert code == 0, printed.err
        assert [cell["requests"] for cell in found["servers"][0]["cells"]] == [12]
        asked = [body["messages"] if "messages" in body else body["prompt"] for _, body in server.asked[1:]]
        if path.endswith("chat/completions"):
            answer = max(asked, key=len)[1]["content"]
            assert sorted(len(messages) for messages in asked) == [1] * 4 + [3] * 4 + [5] * 4
            assert answer
        else:
            opening = {prompt for prompt in asked if len(prompt.split()) == 15}
            assert len(opening) == 4
            assert all(prompt.startswith(tuple(opening)) for prompt in asked)


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_openai_endpoints_are_measured(benchmark, path):
    async with event_server(good) as server:
        parameters = ["--parameters", '{"temperature": 0.5}', "--header", "Authorization: Bearer x"]
        load = ["--workload", "6/3", "--streams", "2", "--requests", "6"]
        code, found, printed = await benchmark(server.url + path, *load, *parameters)
        assert code == 0, printed.err
        [cell] = found["servers"][0]["cells"]
        assert (cell["requests"], cell["prompt_tokens"], cell["answer_tokens"]) == (6, 6, 3)
        assert cell["tokens_per_event"] == 1
        assert found["servers"][0]["server"]["model"] == "the-model"
        assert server.connections == 2
        _, body = server.asked[-1]
        assert (body["model"], body["temperature"], body["ignore_eos"], body["max_tokens"]) == (
            "the-model",
            0.5,
            True,
            3,
        )


async def test_events_of_several_tokens_are_counted_by_the_server(benchmark):
    choice = {"text": " two words", "finish_reason": None}
    usage = {"prompt_tokens": 6, "completion_tokens": 6}
    body = event({"choices": [choice]}) * 2 + event(
        {"choices": [{**choice, "finish_reason": "length"}], "usage": usage}
    )

    def script(path, _):
        return Answer([body]) if path == "/v1/completions" else Answer([], 404)

    async with event_server(script) as server:
        code, found, _ = await benchmark(server.url + "/v1/completions", *QUICK)
        [cell] = found["servers"][0]["cells"]
        assert (code, cell["answer_tokens"], cell["tokens_per_event"]) == (0, 6, 2)
        assert cell["itl_ms"]["p99"] == 0  # they came at once
        assert found["servers"][0]["server"]["model"] == "tgi"


TOKEN = event({"token": {"id": 1}, "generated_text": None})


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Answer([b'{"error": "too long", "error_type": "validation"}'], 422), "HTTP 422: too long"),
        (Answer([b"<html>"], 502, "text/html"), "HTTP 502: <html>"),
        (Answer([TOKEN, event({"error": {"message": "overloaded"}})]), "overloaded"),
        (Answer([TOKEN]), "the stream ended after 1 events, before the answer did"),
        (Answer([TOKEN], cut=True), "the server hung up in the middle of an answer"),
        (Answer([b"data: {what\n\n"]), "an event that /generate_stream does not have"),
        (Answer([b"{}"], content_type="application/json"), "an answer without text, of content type application/json"),
        (Answer([b"SSH-2.0\r\n\r\n"], raw=True), "this is not an HTTP/1.1 server"),
        (Answer([], raw=True), "the server hung up without an answer"),
        (Answer([TOKEN, b": \n\n"], step_s=0.3), "no complete answer within 0.2 s"),
    ],
)
async def test_whatever_goes_wrong_is_counted_with_its_reason(benchmark, answer, told):
    async with event_server(lambda path, _: answer if path == "/generate_stream" else Answer([], 404)) as server:
        timeout = ["--timeout", "0.2"] if answer.step_s else []
        code, found, _ = await benchmark(server.url, *QUICK, *timeout)
        [cell] = found["servers"][0]["cells"]
        assert (code, cell["requests"], cell["failed"]) == (1, 1, 1)
        assert told in cell["first_error"]


async def test_a_warm_up_that_fails_is_the_end_and_what_was_measured_is_reported(benchmark):
    def script(path, body):
        return good(path, body) if body and body["parameters"]["max_new_tokens"] == 3 else Answer([b"no"], 422)

    async with event_server(script) as server:
        code, found, printed = await benchmark(server.url, "--workload", "6/3", "6/4", "--requests", "1")
        assert (code, [cell["workload"] for cell in found["servers"][0]["cells"]]) == (1, ["6/3"])
        assert "failed 1 of 1 warm-up requests, the first with: HTTP 422: no" in printed.err


async def test_a_kept_connection_that_was_closed_is_replaced(benchmark):
    body = b"".join(good("/generate_stream", {"inputs": "x", "parameters": {"max_new_tokens": 3}}).pieces)
    once = Answer([b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)], raw=True)
    async with event_server(lambda *_: once) as server:
        code, found, _ = await benchmark(server.url, "--workload", "6/3", "--requests", "3")
        assert (code, found["servers"][0]["cells"][0]["failed"]) == (0, 0)
        assert server.connections == len(server.asked) == 5  # for /info, the warm-up and three requests


async def test_nobody_there_is_an_error(benchmark):
    code, found, printed = await benchmark(f"http://127.0.0.1:{free_port()}", *QUICK)
    assert (code, found) == (1, None)
    assert "start the server, or check host and port" in printed.err


async def test_servers_are_compared_in_turns_and_files_afterwards(benchmark, directory):
    async with event_server(good) as one, event_server(good) as other:
        first, second = f"{one.url}/v1/completions", f"{other.url}/generate_stream"
        load = ["--workload", "6/3", "9/2", "--requests", "2", "--repetitions", "2"]
        code, found, printed = await benchmark("--compare", first, second, *load)
        assert code == 0
        names = [line.partition(": ")[0] for line in printed.err.splitlines() if " of 2: " in line]
        assert names == [first, second, second, first] * 2
        prompts = [body.get("prompt") or body.get("inputs") for _, body in one.asked + other.asked if body]
        assert prompts[: len(prompts) // 2] == prompts[len(prompts) // 2 :]
        assert [cell["workload"] for cell in found["comparison"]["cells"]] == ["6/3", "9/2"]
        for which, url in (("a", first), ("b", second)):
            _, found, _ = await benchmark(url, *load[:2], *load[3:])
            (directory / f"{which}.json").write_text(json.dumps(found))
    files = [str(directory / "a.json"), str(directory / "b.json")]
    _, found, printed = await benchmark("--compare", files[0], files[0])
    assert found["comparison"]["names"] == ["a", "a (2)"]
    picture = directory / "plots" / "p.svg"
    code, found, printed = await benchmark("--compare", *files, "--plot", str(picture))
    [cell] = found["comparison"]["cells"]
    assert (code, cell["answer_tokens"], cell["ttft_ms"]["p50"] > 0) == (0, 1, True)
    assert "## a beside b" in printed.out
    assert "<svg" in picture.read_text()


@pytest.mark.parametrize("text", ["{}", '{"servers": []}', '{"servers": [{"cells": [3]}]}', "what"])
async def test_a_file_of_another_kind_is_named(benchmark, directory, text):
    (directory / "a.json").write_text(text)
    code, _, printed = await benchmark("--compare", str(directory / "a.json"), str(directory / "a.json"))
    assert code == 1
    assert "a.json" in printed.err
