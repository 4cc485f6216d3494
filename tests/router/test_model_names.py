"""Whom requests ask, in the words of every API: a model's name, an adapter's, and how urgent it is."""

from typing import Any

import pytest

from mocks.fake_adapters import FakeAdapters
from mocks.running_router import running_router

CHAT = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
NATIVE = {"inputs": "Hi", "parameters": {"max_new_tokens": 1}}
OTHERS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "Hi", "max_tokens": 1},
    "/v1/responses": {"input": "Hi", "max_output_tokens": 1},
    "/v1/messages": {**CHAT, "model": "m"},
}
KSERVE: dict[str, dict[str, Any]] = {
    "/v2/models/m/versions/1/infer": {
        "inputs": [{"name": "a", "data": [72]}],
        "outputs": [{"name": "b"}],
        "parameters": {"max_new_tokens": 1},
    }
}
ALL = OTHERS | dict.fromkeys(("/", "/generate", "/generate_stream", "/invocations"), NATIVE) | KSERVE


async def test_a_strict_router_knows_only_what_it_serves(directory):
    options = {"strict_model_names": True, "served_model_name": "m"}
    loads = FakeAdapters(lore="1")  # on the shards' disk
    async with running_router(directory, adapters=("law",), options=options, loads=loads) as router:
        for path, body in OTHERS.items():
            for name, status in {"m": 200, "tgi": 200, "dummy": 200, "law": 200, "lore": 200, "gpt-9": 404}.items():
                answer = await router.client.post(path, json=body | {"model": name})
                assert answer.status_code == status, (path, name, answer.text)
            assert "`gpt-9` is not served here" in answer.json()["error"]["message"]
        assert (await router.client.post("/v1/completions", json=OTHERS["/v1/completions"])).status_code == 200
        assert {request.adapter_id for request in router.sent()} == {"", "law", "lore"}


async def test_every_api_has_the_same_words_for_adapters(directory):
    async with running_router(directory, adapters=("law", "lore"), options={"kserve": True}) as router:
        for path, body in ALL.items():
            inner = body.get("parameters", {})
            for name in ("adapter_id", "lora_id"):
                for named in ({name: "law"}, {"parameters": {**inner, name: "law"}}):
                    assert (await router.client.post(path, json=body | named)).status_code == 200, (path, named)
                    assert router.sent()[-1].adapter_id == "law", (path, named)
            twice = {"adapter_id": "law", "parameters": {**inner, "lora_id": "lore"}}
            refused = await router.client.post(path, json=body | twice)
            assert refused.status_code == 422 and "one adapter. Given: law, lore" in refused.text, path
        for path, body in OTHERS.items():
            assert (await router.client.post(path, json=body | {"model": "law", "lora_id": "lore"})).status_code == 422


@pytest.mark.parametrize("path", OTHERS)
async def test_every_api_has_the_same_words_for_urgency(directory, path):
    async with running_router(directory) as router:
        assert (await router.client.post(path, json=OTHERS[path] | {"priority": 5, "timeout": 9})).is_success
        for wrong in ({"priority": "high"}, {"timeout": 0}):
            assert (await router.client.post(path, json=OTHERS[path] | wrong)).status_code == 422, wrong
