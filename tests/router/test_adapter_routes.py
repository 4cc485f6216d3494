"""Adapters that come, change and go over HTTP: names for clients, contents for shards."""

import asyncio

from mocks.fake_adapters import FakeAdapters
from mocks.running_router import running_router


async def listed(router):
    return {one["name"]: one for one in (await router.client.get("/lora_adapters")).json()["adapters"]}


async def models(router):
    return [model["id"] for model in (await router.client.get("/v1/models")).json()["data"]][1:]


async def test_an_adapter_is_downloaded_listed_pinned_and_deleted(directory):
    async with running_router(directory, loads=FakeAdapters(**{"owner/law": "1", "b": "2"})) as router:
        client, loads = router.client, router.shard.loads
        body = {"lora_id": "owner/law; b", "hf_api_token": "secret"}
        answer = await client.post("/download_lora_adapter", json=body)
        assert (answer.status_code, answer.content, loads.tokens) == (200, b"", ["secret"] * 2)
        assert await models(router) == ["b", "owner/law"]
        assert (await listed(router))["owner/law"] == {
            "name": "owner/law", "rank": 8, "targets": ["q_proj"], "generation": 1, "residency": "host",
            "pinned": False, "requests": 0, "requests_total": 0,
        }  # fmt: skip
        for verb in ("pin", "unpin"):
            assert (await client.post(f"/lora_adapters/owner/law/{verb}")).status_code == 200
        assert (await client.delete("/lora_adapters/owner/law")).status_code == 200
        assert loads.log[2:] == [("pin", "owner/law"), ("unpin", "owner/law"), ("unload", "owner/law")]
        assert await models(router) == ["b"]
        for answer in (
            await client.delete("/lora_adapters/owner/law"),
            await client.post("/lora_adapters/owner/law/pin"),
            await client.post("/download_lora_adapter", json={"lora_id": "nowhere"}),
        ):
            assert (answer.status_code, answer.json()["error_type"]) == (404, "adapter")


async def test_routes_that_vllm_users_script(directory):
    async with running_router(directory, loads=FakeAdapters(**{"/a": "1", "/b": "2", "/c": "broken"})) as router:
        client, load = router.client, "/v1/load_lora_adapter"
        answer = await client.post(load, json={"lora_name": "law", "lora_path": "/a"})
        assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'law' added successfully.")
        again = await client.post(load, json={"lora_name": "law", "lora_path": "/b"})
        assert (again.status_code, "already been loaded" in again.json()["error"]["message"]) == (400, True)
        broken = await client.post(load, json={"lora_name": "verse", "lora_path": "/c"})
        assert (broken.status_code, "use_dora is True" in broken.json()["error"]["message"]) == (422, True)
        taken = await client.post(load, json={"lora_name": "a#2", "lora_path": "/a"})
        assert taken.status_code == 422
        await client.post(load, json={"lora_name": "law", "lora_path": "/b", "load_inplace": True})
        assert (await listed(router))["law"]["generation"] == 2
        answer = await client.post("/v1/unload_lora_adapter", json={"lora_name": "law"})
        assert (answer.status_code, answer.text) == (200, "Success: LoRA adapter 'law' removed successfully.")
        assert await models(router) == []


async def test_a_request_keeps_the_content_that_its_name_meant_when_it_came(directory):
    loads = FakeAdapters(**{"/a": "1", "/b": "2", "/c": "3"})
    async with running_router(directory, loads=loads) as router:

        async def load(place):
            body = {"lora_name": "law", "lora_path": place, "load_inplace": True}
            assert (await router.client.post("/v1/load_lora_adapter", json=body)).status_code == 200

        def sent():
            return [one.adapter_id for name, call in router.shard.calls if name == "Prefill"
                    for one in call.batch.requests]  # fmt: skip

        await load("/a")
        router.shard.running.clear()
        old = asyncio.ensure_future(router.generate("a b c d e f g h", max_new_tokens=4, adapter_id="law"))
        async with asyncio.timeout(5):
            while (await listed(router))["law"]["requests"] == 0:
                await asyncio.sleep(0.01)
        await load("/b")
        await load("/b")  # the same again is nothing new
        new = asyncio.ensure_future(router.generate("a b c d e f g h", max_new_tokens=4, adapter_id="law"))
        await asyncio.sleep(0.05)
        assert loads.loaded == {"law": "1", "law#2": "2"}
        router.shard.running.set()
        assert [answer.status_code for answer in await asyncio.gather(old, new)] == [200, 200]
        await router.until_idle()
        assert sent() == ["law", "law#2"]
        # The prefix is one content's, and what nobody means goes.
        assert [one.cache_len for name, call in router.shard.calls if name == "Prefill" for one in call.batch.requests
                ] == [0, 0]  # fmt: skip
        async with asyncio.timeout(5):
            while loads.loaded != {"law#2": "2"}:
                await asyncio.sleep(0.01)
        await router.client.delete("/lora_adapters/law")
        await load("/c")
        assert loads.loaded == {"law#3": "3"}


async def test_what_the_shards_have_on_disk_is_loaded_when_a_request_names_it(directory):
    async with running_router(directory, loads=FakeAdapters(law="1", bad="broken")) as router:
        asked = [router.generate("a", max_new_tokens=1, adapter_id="law") for _ in range(3)]
        assert [answer.status_code for answer in await asyncio.gather(*asked)] == [200] * 3
        assert router.shard.loads.log == [("find", "law", "law")]
        answer = await router.generate("a", max_new_tokens=1, adapter_id="lore")
        assert (answer.status_code, "must be one of law. Given: lore" in answer.json()["error"]) == (422, True)
        answer = await router.generate("a", max_new_tokens=1, adapter_id="bad")
        assert (answer.status_code, "'bad' cannot be loaded: use_dora is True" in answer.json()["error"]) == (422, True)


async def test_shards_of_others_load_nothing_and_say_so(directory):
    async with running_router(directory) as router:
        for answer in (
            await router.client.post("/download_lora_adapter", json={"lora_id": "owner/law"}),
            await router.client.get("/lora_adapters"),
        ):
            assert (answer.status_code, "the shards are another project's" in answer.json()["error"]) == (501, True)


async def test_a_key_guards_what_changes_adapters(directory):
    async with running_router(directory, options={"api_key": "k"}, loads=FakeAdapters(law="1")) as router:
        assert (await router.client.delete("/lora_adapters/law")).status_code == 401
        assert (await router.client.post("/download_lora_adapter", json={"lora_id": "law"})).status_code == 401
        headers = {"authorization": "Bearer k"}
        assert (await router.client.post("/download_lora_adapter", json={"lora_id": "law"}, headers=headers)).is_success
