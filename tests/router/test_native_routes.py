"""The native API, by what is on the wire."""

import asyncio
import json

from mocks.running_router import events, running_router


async def test_generate_answers_with_the_shards_text(directory):
    async with running_router(directory) as router:
        answer = await router.generate("Hello", max_new_tokens=7)
        assert answer.status_code == 200
        assert answer.json() == {"generated_text": router.text("Hello", 7)}


async def test_generate_sends_timing_headers(directory):
    async with running_router(directory) as router:
        headers = (await router.generate("Grüße", max_new_tokens=4)).headers
        assert headers["x-compute-type"] == "gpu+optimized"
        assert headers["x-compute-characters"] == "5"
        assert headers["x-prompt-tokens"] == "8"  # a byte each, and the one in front
        assert headers["x-generated-tokens"] == "4"
        whole = ("total-time", "validation-time", "queue-time", "inference-time", "time-per-token")
        assert all(headers[f"x-{name}"].isdigit() for name in whole)
        assert float(headers["x-compute-time"]) > 0


async def test_details_are_complete_and_in_order(directory):
    async with running_router(directory) as router:
        answer = await router.generate("Hi", max_new_tokens=2, details=True, seed=5, do_sample=True)
        details = answer.json()["details"]
        assert list(details) == ["finish_reason", "generated_tokens", "seed", "prefill", "tokens"]
        assert details["finish_reason"] == "length" and details["generated_tokens"] == 2 and details["seed"] == 5
        assert details["prefill"] == []
        assert [list(token) for token in details["tokens"]] == [["id", "text", "logprob", "special"]] * 2
        assert "".join(token["text"] for token in details["tokens"]) == answer.json()["generated_text"]


async def test_prompt_details_begin_without_a_logprob_and_use_no_cache(directory):
    async with running_router(directory) as router:
        for _ in range(2):
            answer = await router.generate("abc", max_new_tokens=1, decoder_input_details=True)
            prefill = answer.json()["details"]["prefill"]
            assert [token["text"] for token in prefill] == ["<s>", "a", "b", "c"]
            assert [token["logprob"] for token in prefill] == [None, -0.5, -0.5, -0.5]
        assert await router.metric("tgi_prefix_cache_hit_tokens") == 0


async def test_log_probabilities_are_written_as_the_shortest_32_bit_floats(directory):
    async with running_router(directory) as router:
        answer = await router.generate("Hello", max_new_tokens=7, details=True)
        written = [part.split(",")[0] for part in answer.text.split('"logprob":')[1:]]
        assert all(len(number) <= 4 for number in written)  # tenths: a 64-bit float would show 17 digits


async def test_top_tokens_come_with_each_token(directory):
    async with running_router(directory) as router:
        details = (await router.generate("Hi", max_new_tokens=3, details=True, top_n_tokens=2)).json()["details"]
        assert [len(alternatives) for alternatives in details["top_tokens"]] == [2, 2, 2]
        body = {"inputs": "Hi", "parameters": {"max_new_tokens": 1, "top_n_tokens": 2}}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            assert [len(event["top_tokens"]) for event in [event async for event in events(response)]] == [2]


async def test_a_stream_is_events_and_nothing_else(directory):
    async with running_router(directory) as router:
        body = {"inputs": "Hello", "parameters": {"max_new_tokens": 3, "details": True}}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            raw = b"".join([chunk async for chunk in response.aiter_raw()])
        assert response.status_code == 200
        headers = {
            name: value for name, value in response.headers.items() if name not in ("date", "vary", "x-request-id")
        }
        assert headers == {
            "content-type": "text/event-stream",
            "cache-control": "no-cache",
            "x-accel-buffering": "no",
            "x-compute-type": "gpu+optimized",
            "x-compute-characters": "5",
            "transfer-encoding": "chunked",
        }
        first, *_, last, end = raw.split(b"\n\n")
        assert end == b""
        text = router.text("Hello", 3)
        assert first == (
            b'data: {"index":1,"token":{"id":%d,"text":"%s","logprob":%s,"special":false},'
            b'"generated_text":null,"details":null}'
        ) % (_id(text[0]), text[:1].encode(), _logprob(text[0]))
        assert last == (
            b'data: {"index":3,"token":{"id":%d,"text":"%s","logprob":%s,"special":false},"generated_text":"%s",'
            b'"details":{"finish_reason":"length","generated_tokens":3,"seed":null,"input_length":6}}'
        ) % (_id(text[2]), text[2:].encode(), _logprob(text[2]), text.encode())


async def test_the_old_shape_is_a_list_and_repeats_the_prompt(directory):
    async with running_router(directory) as router:
        body = {"inputs": "Hello ", "parameters": {"max_new_tokens": 2}}
        answer = await router.client.post("/", json=body)
        assert answer.json() == [{"generated_text": "Hello " + router.text("Hello ", 2)}]
        assert (await router.client.post("/invocations", json=body)).json() == answer.json()
        body["parameters"]["return_full_text"] = False
        assert (await router.client.post("/", json=body)).json() == [{"generated_text": router.text("Hello ", 2)}]
        async with router.client.stream("POST", "/", json={**body, "stream": True}) as response:
            assert [event["index"] async for event in events(response)] == [1, 2]


async def test_the_full_text_of_a_stream_is_in_its_last_event(directory):
    async with running_router(directory) as router:
        body = {"inputs": "Hello ", "parameters": {"max_new_tokens": 2, "return_full_text": True}}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            texts = [event["generated_text"] async for event in events(response)]
        assert texts == [None, "Hello " + router.text("Hello ", 2)]


async def test_parameters_reach_the_shard(directory):
    wanted = {
        "temperature": 0.5,
        "top_k": 7,
        "top_p": 0.75,
        "typical_p": 0.25,
        "repetition_penalty": 1.5,
        "frequency_penalty": -0.5,
        "seed": 2**64 - 1,
    }
    async with running_router(directory) as router:
        await router.generate("Hi", max_new_tokens=3, do_sample=True, stop=["zz"], truncate=2, top_n_tokens=1, **wanted)
        request = _prefills(router)[0].batch.requests[0]
        assert {name: getattr(request.parameters, name) for name in wanted} == wanted
        assert request.parameters.do_sample and not request.parameters.watermark
        assert list(request.stopping_parameters.stop_sequences) == ["zz"]
        assert request.stopping_parameters.max_new_tokens == 3 and not request.stopping_parameters.ignore_eos_token
        assert request.truncate == 2 and request.top_n_tokens == 1


async def test_without_parameters_the_answer_is_sampled_and_as_long_as_fits(directory):
    async with running_router(directory, max_total_tokens=40) as router:
        answer = await router.client.post("/generate", json={"inputs": "Hello"})
        assert len(answer.json()["generated_text"]) == 34
        assert _prefills(router)[0].batch.requests[0].parameters.do_sample
        await router.client.post("/generate", json={"inputs": "Hello", "parameters": {}})
        request = _prefills(router)[1].batch.requests[0]
        assert not request.parameters.do_sample and request.truncate == 39


async def test_null_stands_for_the_default_and_unknown_keys_for_nothing(directory):
    names = ("do_sample", "watermark", "details", "decoder_input_details", "stop", "grammar", "lora_id", "best_of")
    async with running_router(directory) as router:
        body = {"inputs": "Hi", "stream": None, "more": 1, "parameters": dict.fromkeys(names) | {"max_new_tokens": 1}}
        assert (await router.client.post("/generate", json=body)).status_code == 200
        body = {"inputs": "Hi", "parameters": {"max_new_tokens": 1, "lora_id": "empty", "adapter_id": None, "top_p": 1}}
        assert (await router.client.post("/generate", json=body)).status_code == 200


async def test_a_stop_sequence_ends_the_text_and_stays_in_it(directory):
    async with running_router(directory) as router:
        text = router.text("Hello", 8)
        answer = await router.generate("Hello", max_new_tokens=8, stop=[text[2:4]], details=True)
        assert answer.json()["generated_text"] == text[:4]
        assert answer.json()["details"]["finish_reason"] == "stop_sequence"


async def test_best_of_returns_the_likeliest_and_shows_the_others(directory):
    async with running_router(directory, options={"max_best_of": 3}) as router:
        answer = await router.generate("Hello", best_of=3, do_sample=True, max_new_tokens=2, details=True)
        requests = [request for call in _prefills(router) for request in call.batch.requests]
        assert len({request.parameters.seed for request in requests}) == 3
        details = answer.json()["details"]
        assert list(details)[-1] == "best_of_sequences" and len(details["best_of_sequences"]) == 2
        assert list(details["best_of_sequences"][0])[:2] == ["generated_text", "finish_reason"]
        assert (await router.generate("Hello", best_of=0, max_new_tokens=1)).status_code == 200


async def test_a_generation_ends_with_the_room_there_is(directory):
    async with running_router(directory, max_total_tokens=1100) as router:
        answer = await router.generate("Hello", max_new_tokens=1500, details=True)
        assert answer.json()["details"]["finish_reason"] == "length"
        assert answer.json()["generated_text"] == router.text("Hello", 1094)


async def test_info_tells_the_limits(directory):
    async with running_router(directory, options={"max_input_tokens": 30, "max_total_tokens": 50}) as router:
        info = (await router.client.get("/info")).json()
        assert info["model_id"] == str(directory) and info["model_sha"] is None
        assert (info["max_input_tokens"], info["max_total_tokens"]) == (30, 50)
        assert info["max_batch_total_tokens"] == 4096 and info["model_dtype"] == "torch.float32"
        assert info["router"] == "text-generation-router"


async def test_a_model_is_called_what_it_was_asked_for_by(directory):
    async with running_router(directory, options={"served_model_name": "org/model"}) as router:
        assert (await router.client.get("/info")).json()["model_id"] == "org/model"
        assert [model["id"] for model in (await router.client.get("/v1/models")).json()["data"]] == ["org/model"]


async def test_health_has_an_empty_body(directory):
    async with running_router(directory) as router:
        for path in ("/", "/health", "/ping", "/health/live", "/health/ready"):
            answer = await router.client.get(path)
            assert answer.status_code == 200 and answer.content == b""
            assert (await router.client.head(path)).status_code == 200


async def test_unknown_routes_and_methods(directory):
    async with running_router(directory) as router:
        unknown = await router.client.get("/nothing")
        assert unknown.status_code == 404 and unknown.json()["error_type"] == "not_found"
        wrong = await router.client.get("/generate")
        assert wrong.status_code == 405 and wrong.headers["allow"] == "POST"
        assert (await router.client.put("/")).headers["allow"] == "GET, HEAD, POST"


async def test_the_key_guards_what_generates(directory):
    async with running_router(directory, options={"api_key": "Secret"}) as router:
        body = {"inputs": "Hi", "parameters": {"max_new_tokens": 1}}
        for path in ("/", "/generate", "/generate_stream", "/invocations", "/tokenize"):
            for header in ({}, {"authorization": "Bearer secret"}, {"authorization": "Secret"}):
                refused = await router.client.post(path, json=body, headers=header)
                assert refused.status_code == 401 and refused.json()["error_type"] == "unauthorized"
            allowed = await router.client.post(path, json=body, headers={"authorization": "bearer Secret"})
            assert allowed.status_code == 200
        for path in ("/health", "/info", "/metrics"):
            assert (await router.client.get(path)).status_code == 200


async def test_browsers_may_call_from_the_origins_given(directory):
    async with running_router(directory, options={"cors_allow_origin": ("https://a.example",)}) as router:
        asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization"}
        answer = await router.client.options("/generate", headers={"origin": "https://a.example", **asked})
        assert answer.headers["access-control-allow-origin"] == "https://a.example"
        other = await router.client.options("/generate", headers={"origin": "https://b.example", **asked})
        assert "access-control-allow-origin" not in other.headers


async def test_a_silent_stream_is_kept_alive(directory):
    async with running_router(directory, keep_alive_s=0.05) as router:
        router.shard.running.clear()
        body = {"inputs": "Hi", "parameters": {"max_new_tokens": 1}}
        async with router.client.stream("POST", "/generate_stream", json=body) as response:
            chunks = response.aiter_raw()
            assert [await anext(chunks) for _ in range(3)] == [b":\n\n"] * 3
            router.shard.running.set()
            rest = b"".join([chunk async for chunk in chunks]).replace(b":\n\n", b"")
        assert json.loads(rest.removeprefix(b"data: "))["generated_text"] == router.text("Hi", 1)


async def test_requests_at_once_get_their_own_texts(directory):
    async with running_router(directory) as router:
        prompts = [f"prompt {i}" * (i % 5 + 1) for i in range(24)]
        answers = await asyncio.gather(*(router.generate(p, max_new_tokens=5 + len(p) % 7) for p in prompts))
        for prompt, answer in zip(prompts, answers, strict=True):
            assert answer.json()["generated_text"] == router.text(prompt, 5 + len(prompt) % 7)
        await router.until_idle()


def _prefills(router):
    return [call for name, call in router.shard.calls if name == "Prefill"]


def _id(letter: str) -> int:
    return ord(letter) - ord("!")


def _logprob(letter: str) -> bytes:
    return str(-(ord(letter) - ord("a") + 1) / 10).encode()
