"""Requests that are made to cost, or that bring no key: refused early, with a status of their own."""

import asyncio
import importlib
import json
import pkgutil

import pytest
from pydantic import TypeAdapter, ValidationError

import text_generation_router
from mocks.running_router import RunningRouter, running_router
from text_generation_router.errors import InvalidSettings
from text_generation_router.head_limit import LONGEST_HEAD
from text_generation_router.keys import read_keys
from text_generation_router.schemas import Body, Count, Float

DEEP, LONG, MANY = 20_000, 50_000, 200_000
BOMBS = {
    "lists in lists": ("[" * DEEP, 400),
    "objects in objects": ('{"a":' * DEEP, 400),
    "deep in a key that means nothing": ('{"inputs":"a","model":"a","x":' + "[" * DEEP, 400),
    "a number of many digits": ('{"inputs":"a","parameters":{"seed":' + "9" * LONG + "}}", 400),
    "a number of many digits elsewhere": ('{"inputs":"a","x":' + "9" * LONG + "}", 400),
    "a number beyond floats": ('{"inputs":"a","parameters":{"temperature":1e999}}', 422),
    "the same key again and again": ("{" + ",".join(['"a":1'] * MANY) + "}", 422),
    "many keys and no right one": ("{" + ",".join(f'"{i}":1' for i in range(100_000)) + "}", 422),
    "no text": (b'{"inputs":"\xff\xfe"}', 400),
    "half a pair": ('{"inputs":"\\ud800"}', 400),
}


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions"])
async def test_json_that_is_made_to_cost_is_a_fault_of_the_client(directory, path):
    async with running_router(directory) as router:
        for name, (body, status) in BOMBS.items():
            headers = {"content-type": "application/json"}
            answer = await router.client.post(path, content=body, headers=headers)
            expected = {status, 422} if path == "/v1/chat/completions" else {status}
            assert answer.status_code in expected, f"{name}: {answer.text[:200]}"
            assert len(answer.content) < 1000 and "error" in answer.json(), name
        assert (await router.generate("Hello", max_new_tokens=1)).status_code == 200


def body_kinds() -> list[type[Body]]:
    """Every request body that there is, with those that are parts of others."""
    for module in pkgutil.walk_packages(text_generation_router.__path__, "text_generation_router."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    found, unseen = [], [Body]
    while unseen:
        unseen += (kinds := unseen.pop().__subclasses__())
        found += kinds
    return found


WRONG = {"list": [[]] * 1000, "list of lists": [[{}]] * 1000, "list of objects": [{"role": 1}] * 1000}
WRONG |= {"object": {str(i): {} for i in range(5000)}}


@pytest.mark.parametrize("kind", body_kinds(), ids=lambda kind: kind.__name__)
def test_no_list_or_object_is_checked_to_its_end_once_it_is_wrong(kind):
    for name, field in kind.model_fields.items():
        for value in WRONG.values():
            try:
                kind.model_validate_json(json.dumps({field.alias or name: value}))
            except ValidationError as error:
                assert error.error_count() < 40, name


def test_an_object_whose_values_are_checked_is_short():
    class Weights(Body):
        bias: dict[Count, Float] | None = None

    assert Weights.model_validate_json('{"bias": {"1": 2}}').bias == {1: 2}
    with pytest.raises(ValidationError, match="valid number"):
        Weights.model_validate_json('{"bias": {"1": "2"}}')
    with pytest.raises(ValidationError, match="at most 4096 keys"):
        TypeAdapter(Weights).validate_json(json.dumps({"bias": {str(i): 0.0 for i in range(4097)}}))


async def raw(router: RunningRouter, *parts: bytes) -> bytes:
    """What is answered to bytes, which are sent until the router hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", router.client.base_url.port)
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(0)
    except OSError:
        pass
    try:
        return await reader.read()
    except OSError:
        return b""
    finally:
        writer.close()


@pytest.mark.parametrize("part", [b"x: y\r\n" * 1000, b"x" * 6000, b"x: " + b"y" * 6000], ids=["many", "name", "value"])
async def test_a_head_that_does_not_end_is_hung_up_on(directory, part):
    async with running_router(directory) as router:
        parts = [b"POST /generate HTTP/1.1\r\nhost: x\r\n", *[part] * 1000]
        async with asyncio.timeout(20):
            answer = await raw(router, *parts)
            slow = await raw(router, *parts[: LONGEST_HEAD // 6000 + 2])
        assert answer == b"" or answer.startswith(b"HTTP/1.1 431")  # nothing, if it was still sending
        assert slow.startswith(b"HTTP/1.1 431") and b'"error_type":"validation"' in slow
        usual = {f"x-{n}": "y" * 1000 for n in range(30)}
        assert (await router.client.get("/info", headers=usual)).status_code == 200


@pytest.fixture
def keys_file(tmp_path):
    path = tmp_path / "keys"
    path.write_text("# of the team\nfirst\n\n  second key  \n")
    return str(path)


async def test_any_of_several_keys_opens_and_no_part_of_one(directory, keys_file):
    async with running_router(directory, options={"api_key": "one, two", "api_key_file": keys_file}) as router:
        statuses = {}
        for key in ("one", "two", "first", "second key", "o", "one, two", "One", "# of the team", "key"):
            headers = {"authorization": f"Bearer {key}"}
            statuses[key] = (await router.client.post("/tokenize", json={"inputs": "a"}, headers=headers)).status_code
    opens = {"one", "two", "first", "second key"}
    assert statuses == {key: 200 if key in opens else 401 for key in statuses}


@pytest.mark.parametrize(("given", "told"), [("", "empty key"), ("a,,b", "empty key"), (" ", "empty key")])
def test_keys_that_would_let_everybody_in_are_refused(given, told):
    with pytest.raises(InvalidSettings, match=told):
        read_keys(given, None)


@pytest.mark.parametrize(
    ("written", "told"), [(None, "cannot be read"), (b"\n# none\n", "has no key"), (b"\xff", "read")]
)
def test_a_file_without_keys_is_refused(tmp_path, written, told):
    path = tmp_path / "keys"
    if written is not None:
        path.write_bytes(written)
    with pytest.raises(InvalidSettings, match=told):
        read_keys(None, str(path))
