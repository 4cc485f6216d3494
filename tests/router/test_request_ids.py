"""The name of a request: taken or made, answered, and in every log line about it."""

import json
import re

import pytest
from loguru import logger

from mocks.running_router import running_router
from text_generation_router.inbox import Inbox
from text_generation_router.log import set_up_logging


@pytest.fixture
def lines():
    """What is logged, as (level, message, request id)."""
    found = []

    def note(message):
        record = message.record
        found.append((record["level"].name, record["message"], record["extra"].get("request_id")))

    sink = logger.add(note, level="INFO")
    yield found
    logger.remove(sink)


ASKED = {"inputs": "Hello", "parameters": {"max_new_tokens": 2}}


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/completions"])
async def test_a_clients_id_is_answered_and_logged(directory, lines, path):
    async with running_router(directory) as router:
        body = ASKED if path[1] == "g" else {"prompt": ["a", "b"], "max_tokens": 2}
        answer = await router.client.post(path, json=body, headers={"x-request-id": "mine-7"})
    assert answer.headers["x-request-id"] == "mine-7"
    said = [request_id for _, message, request_id in lines if message.startswith("Success")]
    assert said == ["mine-7"] * (1 if path[1] == "g" else 2)


@pytest.mark.parametrize("given", [None, "", "two words", "x" * 129, "ü"])
async def test_what_is_no_usable_id_is_replaced(directory, given):
    async with running_router(directory) as router:
        headers = {} if given is None else {"x-request-id": given.encode()}
        made = {(await router.client.post("/generate", json=ASKED, headers=headers)).headers["x-request-id"]}
        made |= {(await router.client.get("/nowhere", headers=headers)).headers["x-request-id"]}
    assert len(made) == 2 and all(len(one) == 32 and one.isalnum() for one in made)


async def test_every_answer_has_one_and_failures_are_logged_under_it(directory, lines):
    async with running_router(directory, options={"api_key": "k"}) as router:
        sent = {"x-request-id": "n", "authorization": "Bearer k"}
        assert (await router.client.post("/generate", headers={"x-request-id": "n"})).status_code == 401
        for body in ({**ASKED, "inputs": ""}, ASKED):
            router.shard.failures["Prefill"] = "no kernel"
            answer = await router.client.post("/generate", json=body, headers=sent)
            assert answer.status_code in (422, 424) and answer.headers["x-request-id"] == "n"
    told = [(level, message) for level, message, request_id in lines if request_id == "n"]
    assert told == [
        ("INFO", "validation: Input validation error: `inputs` cannot be empty"),
        ("ERROR", "generation: Request failed during generation: Server error"),
    ]
    assert ("ERROR", "prefill of 1 requests failed: Server error: no kernel", None) in lines


@pytest.fixture
def breaking(monkeypatch):
    """Let the second step of a request raise what no client may read."""
    next_step, steps = Inbox.next, []

    async def broken(entry):
        steps.append(entry)
        if len(steps) == 2:
            raise RuntimeError("secret of /home")
        return await next_step(entry)

    monkeypatch.setattr(Inbox, "next", broken)


@pytest.mark.parametrize("path", ["/generate", "/generate_stream", "/v1/completions"])
async def test_a_fault_of_our_own_tells_the_log_everything_and_the_client_nothing(directory, lines, breaking, path):
    async with running_router(directory) as router:
        body = ASKED if path[1] == "g" else {"prompt": "a", "max_tokens": 2, "stream": True}
        answer = await router.client.post(path, json=body, headers={"x-request-id": "n"})
        await router.until_idle()
    assert answer.status_code == (500 if path == "/generate" else 200) and answer.headers["x-request-id"] == "n"
    last = answer.json() if path == "/generate" else json.loads(answer.text.split("data: ")[2])
    assert "Internal server error" in str(last["error"]) and "secret" not in answer.text
    assert ("ERROR", "A fault of the router's own", "n") in lines


def test_text_shows_it(capsys):
    set_up_logging("info", json_output=False)
    with logger.contextualize(request_id="n{7}"):
        logger.info("about {}", "one")
    logger.info("about none")
    logger.remove()
    one, none = capsys.readouterr().out.splitlines()
    assert one.endswith("about one [n{7}]") and none.endswith("about none")


def test_json_has_the_fields_of_tgis_router(capsys):
    logger.configure(extra={})  # of shards that ran in this process
    set_up_logging("info", json_output=True)
    with logger.contextualize(request_id="n7"):
        logger.bind(total_time=0.5).warning("one {}", 'quoted "word"')
        try:
            {}["nothing"]
        except KeyError as error:
            logger.opt(exception=error).error("a fault")
    logger.remove()
    one, fault = map(json.loads, capsys.readouterr().out.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", one.pop("timestamp")) and one.pop("line_number") > 0
    assert one == {
        "level": "WARN",
        "message": 'one quoted "word"',
        "request_id": "n7",
        "total_time": 0.5,
        "target": __name__,
        "filename": "test_request_ids.py",
    }
    assert (
        fault["level"] == "ERROR" and "KeyError: 'nothing'" in fault["exception"] and "Traceback" in fault["exception"]
    )
