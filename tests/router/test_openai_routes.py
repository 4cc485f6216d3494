"""OpenAI's routes, by what is on the wire on both sides."""

import asyncio
import json
from typing import Any

import httpx
import pytest

from mocks.running_router import RunningRouter, running_router
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_router.routes.texts import Pieces
from text_generation_router.types import FinishReason, GeneratedText

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES = [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}]
PROMPT = "[system]Be brief[user]Hi[assistant]"
HEADERS = {"content-type": "text/event-stream", "cache-control": "no-cache", "x-accel-buffering": "no"}
HEADERS |= {"x-compute-type": "gpu+optimized"}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}

REFUSED = [
    (CHAT, {"messages": []}, "messages"),
    (CHAT, {"messages": [{"content": "Hi"}]}, "messages"),
    (CHAT, {"messages": "Hi"}, "messages"),
    (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, "messages"),
    (CHAT, {"tools": [{"type": "function", "function": {}}]}, "tools"),
    (CHAT, {"tool_choice": "required"}, "tool_choice"),
    (CHAT, {"top_logprobs": 2}, "top_logprobs"),
    (CHAT, {"logprobs": True, "top_logprobs": 6}, "top_logprobs"),
    (CHAT, {"max_tokens": 3, "max_completion_tokens": 4}, "max_tokens"),
    (CHAT, {"response_format": {"type": "json_schema"}}, "response_format"),
    (CHAT, {"lora_id": "some/adapter"}, "lora_id"),
    (CHAT, {"min_p": 1.5, "temperature": 1}, "min_p"),
    (CHAT, {"messages": [{"role": "user", "content": "x" * 300}]}, "prompt"),
    (COMPLETIONS, {"prompt": ""}, "prompt"),
    (COMPLETIONS, {"prompt": []}, "prompt"),
    (COMPLETIONS, {"prompt": [[]]}, "prompt"),
    (COMPLETIONS, {"prompt": [1, "a"]}, "prompt"),
    (COMPLETIONS, {"prompt": [3, 258]}, "prompt"),
    (COMPLETIONS, {"prompt": ["a"] * 5}, "prompt"),
    (COMPLETIONS, {"suffix": "b"}, "suffix"),
    (COMPLETIONS, {"best_of": 1, "n": 2}, "best_of"),
    (COMPLETIONS, {"prompt": "x" * 300}, "prompt"),
    *((path, {"temperature": 1, "top_p": 0}, "top_p") for path in (CHAT, COMPLETIONS)),
    *(
        (path, {name: value}, name)
        for path in (CHAT, COMPLETIONS)
        for name, value in (
            ("logit_bias", {"5": 101}),
            ("logit_bias", {"258": 1}),
            ("logit_bias", {"five": 1}),
            ("logit_bias", [1.0]),
            ("presence_penalty", 2.5),
            ("frequency_penalty", -2.5),
            ("min_tokens", 200),
            ("stop_token_ids", [258]),
            ("stop_token_ids", [-1]),
            ("timeout", 0),
            ("bad_words", ["a"]),
            ("use_beam_search", True),
            ("n", 3),
            ("n", 0),
            ("max_tokens", 0),
            ("temperature", -1),
            ("frequency_penalty", 3),
            ("repetition_penalty", 0),
            ("stop", ["a"] * 5),
        )
    ),
]


def body(path: str, **fields: Any) -> dict[str, Any]:
    return {**({"messages": MESSAGES} if path == CHAT else {"prompt": "Hello"}), "temperature": 0, **fields}


def sent(router: RunningRouter) -> list[Any]:
    """The requests that the shard got."""
    return [request for name, call in router.shard.calls if name == "Prefill" for request in call.batch.requests]


async def data(response: httpx.Response) -> list[Any]:
    """What a stream's events carry, the last one checked and left out."""
    lines = [line.removeprefix("data: ") async for line in response.aiter_lines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


async def streamed(router: RunningRouter, path: str, **fields: Any) -> list[Any]:
    async with router.client.stream("POST", path, json=body(path, stream=True, **fields)) as response:
        assert response.status_code == 200
        told = {name: value for name, value in response.headers.items() if name in HEADERS or "x-" in name[:2]}
        assert told.pop("x-request-id") and int(told.pop("x-compute-characters")) and told == HEADERS
        return await data(response)


def text_of(choice: dict[str, Any]) -> str:
    return choice["text"] if "text" in choice else choice["delta"].get("content", "")


async def test_a_chat_is_a_prompt_by_the_models_template(directory):
    async with running_router(directory, max_total_tokens=100) as router:
        ignored = {"user": "me", "store": False, "metadata": {"a": "b"}, "tools": [], "presence_penalty": 0.0}
        answer = await router.client.post(CHAT, json=body(CHAT, max_completion_tokens=5, model="mine", **ignored))
        told = answer.json()
        assert told.pop("id").startswith("chatcmpl-") and told.pop("created") > 1e9
        assert told.pop("system_fingerprint").endswith("-native")
        message = {"role": "assistant", "content": router.text(PROMPT, 5), "refusal": None}
        assert told == {
            "object": "chat.completion",
            "model": "mine",
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "length"}],
            "usage": {"prompt_tokens": 36, "completion_tokens": 5, "total_tokens": 41},
        }
        assert answer.headers["x-compute-characters"] == "38" and answer.headers["x-generated-tokens"] == "5"
        request = sent(router)[0]
        assert request.inputs == f"<s>{PROMPT}" and not request.add_special_tokens and not request.parameters.do_sample
        parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
        begun = [{"role": "user", "content": parts}, {"role": "assistant", "content": "So"}]
        fields = {"messages": begun, "temperature": None, "chat_template_kwargs": {"mark": "."}}
        whole = (await router.client.post(CHAT, json=body(CHAT, **fields))).json()
        request = sent(router)[1]
        assert request.inputs == "<s>[user]Hi.[assistant]So" and request.parameters.do_sample
        assert whole["usage"]["total_tokens"] == 100  # as long as fits


async def test_a_chats_stream_opens_with_the_role_and_closes_with_the_reason(directory):
    async with running_router(directory, eos_after=3) as router:
        first, *chunks = await streamed(router, CHAT, stream_options={"include_usage": True})
        text = router.text(PROMPT, 3)
        assert list(first) == ["id", "object", "created", "model", "system_fingerprint", "choices", "usage"]
        assert first["object"] == "chat.completion.chunk" and {chunk["id"] for chunk in chunks} == {first["id"]}
        told = [chunk["choices"] for chunk in (first, *chunks)]
        deltas = [{"role": "assistant", "content": ""}, *({"content": letter} for letter in text), {}]
        assert told == [
            *(
                [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None if delta else "stop"}]
                for delta in deltas
            ),
            [],
        ]
        usage = [chunk["usage"] for chunk in (first, *chunks)]
        assert usage == [None] * 5 + [{"prompt_tokens": 36, "completion_tokens": 3, "total_tokens": 39}]
        assert all("usage" not in chunk for chunk in await streamed(router, CHAT))


async def test_several_prompts_with_several_answers(directory):
    async with running_router(directory) as router:
        fields = {"prompt": ["a", "bc"], "n": 2, "temperature": 1, "seed": 2**64 - 1}
        answer = (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, **fields))).json()
        assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]
        texts = [router.text(prompt, 16) for prompt in ("a", "a", "bc", "bc")]
        assert [choice["text"] for choice in answer["choices"]] == texts
        assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 64, "total_tokens": 69}
        assert sorted(request.parameters.seed for request in sent(router)) == [0, 0, 2**64 - 1, 2**64 - 1]
        *chunks, last = await streamed(router, COMPLETIONS, **fields, stream_options={"include_usage": True})
        choices = [chunk["choices"][0] for chunk in chunks]
        for index, text in enumerate(texts):
            mine = [choice for choice in choices if choice["index"] == index]
            assert "".join(map(text_of, mine)) == text
            assert [choice["finish_reason"] for choice in mine] == [None] * 16 + ["length"]
        assert last["usage"] == answer["usage"] and last["choices"] == []
        assert await router.metric("tgi_request_count") == await router.metric("tgi_request_success") == 2
        assert await router.metric("tgi_request_generated_tokens_sum") == 128


@pytest.mark.parametrize("path", [CHAT, COMPLETIONS])
async def test_the_stop_sequence_is_no_part_of_the_text(directory, path):
    async with running_router(directory) as router:
        text = router.text(PROMPT if path == CHAT else "Hello", 12)
        fields = {"max_tokens": 12, "stop": [text[4:7], text[5:9] + "?"]}
        choice = (await router.client.post(path, json=body(path, **fields))).json()["choices"][0]
        assert (choice["text"] if path == COMPLETIONS else choice["message"]["content"]) == text[:4]
        assert choice["finish_reason"] == "stop"
        choices = [chunk["choices"][0] for chunk in await streamed(router, path, **fields)]
        assert "".join(map(text_of, choices)) == text[:4] and choices[-1]["finish_reason"] == "stop"


def test_what_may_become_a_stop_sequence_is_held_back():
    pieces = Pieces(["", "\nEnd.", "ndx"])
    assert [pieces.add(text) for text in ("a\nE", "n", "d", "!\n", "E")] == ["a", "", "", "\nEnd!", ""]
    assert pieces.end(GeneratedText("a\nEnd!\nEnd.", 9, FinishReason.STOP_SEQUENCE, None)) == ""
    pieces = Pieces(["\nEnd"])
    assert pieces.add("a\nEn") == "a"
    assert pieces.end(GeneratedText("a\nEn", 2, FinishReason.LENGTH, None)) == "\nEn"


async def test_log_probabilities(directory):
    async with running_router(directory) as router:
        text = router.text(PROMPT, 2)
        fields = {"max_tokens": 2, "logprobs": True, "top_logprobs": 1}
        top = [{"token": "t", "logprob": 0.0, "bytes": [116]}]
        expected = [
            {"token": letter, "logprob": -(ord(letter) - 96) / 10, "bytes": [ord(letter)], "top_logprobs": top}
            for letter in text
        ]
        answer = (await router.client.post(CHAT, json=body(CHAT, **fields))).json()
        assert answer["choices"][0]["logprobs"] == {"content": expected, "refusal": None}
        choices = [chunk["choices"][0] for chunk in await streamed(router, CHAT, **fields)]
        assert [choice["logprobs"]["content"] for choice in choices if choice["logprobs"]] == [
            [one] for one in expected
        ]
        text = router.text("Hello", 2)
        scores = [-(ord(letter) - 96) / 10 for letter in text]
        answer = (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, max_tokens=2, logprobs=1))).json()
        assert answer["choices"][0]["logprobs"] == {
            "tokens": list(text),
            "token_logprobs": scores,
            "top_logprobs": [{"t": 0.0, letter: score} for letter, score in zip(text, scores, strict=True)],
            "text_offset": [0, 1],
        }
        chunks = await streamed(router, COMPLETIONS, max_tokens=2, logprobs=0)
        assert [chunk["choices"][0]["logprobs"] for chunk in chunks[:-1]] == [
            {"tokens": [letter], "token_logprobs": [score], "top_logprobs": [{letter: score}], "text_offset": [place]}
            for place, (letter, score) in enumerate(zip(text, scores, strict=True))
        ]


async def test_forms_of_answers_and_parameters_reach_the_shard(directory):
    given: list[tuple[Any, Any, Any]] = [
        (None, pb.GRAMMAR_TYPE_NONE, ""),
        ({"type": "text"}, pb.GRAMMAR_TYPE_NONE, ""),
        ({"type": "json_object"}, pb.GRAMMAR_TYPE_JSON, {"properties": {}, "additionalProperties": True}),
        ({"type": "json_object", "value": SCHEMA}, pb.GRAMMAR_TYPE_JSON, SCHEMA),
        ({"type": "json", "value": json.dumps(SCHEMA)}, pb.GRAMMAR_TYPE_JSON, SCHEMA),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": SCHEMA}},
            pb.GRAMMAR_TYPE_JSON,
            SCHEMA,
        ),
        ({"type": "json_schema", "value": {"schema": SCHEMA}}, pb.GRAMMAR_TYPE_JSON, SCHEMA),
        ({"type": "regex", "value": "[0-9]+"}, pb.GRAMMAR_TYPE_REGEX, "[0-9]+"),
    ]
    wanted = {"temperature": 0.5, "top_p": 0.75, "top_k": 7, "presence_penalty": -0.5, "repetition_penalty": 1.5}
    async with running_router(directory) as router:
        for form, kind, grammar in given:
            fields = {**wanted, "seed": -1, "response_format": form, "max_tokens": 1}
            assert (await router.client.post(CHAT, json=body(CHAT, **fields))).status_code == 200
            parameters = sent(router)[-1].parameters
            assert {name: getattr(parameters, name) for name in wanted} == wanted
            assert parameters.seed == 2**64 - 1 and parameters.do_sample and parameters.grammar_type == kind
            assert parameters.grammar == (grammar if isinstance(grammar, str) else json.dumps(grammar))
        await router.client.post(CHAT, json=body(CHAT, **{**wanted, "temperature": 0, "max_tokens": 1}))
        parameters = sent(router)[-1].parameters
        assert (parameters.do_sample, parameters.temperature, parameters.top_p, parameters.top_k) == (False, 1, 1, 0)


async def test_what_cannot_act_is_refused_by_name(directory):
    options = {"max_input_tokens": 60, "max_total_tokens": 100}
    async with running_router(directory, options=options, vocab_size=258) as router:
        for path, fields, param in REFUSED:
            for stream in (False, True):
                answer = await router.client.post(path, json=body(path, stream=stream, **fields))
                assert answer.status_code == 422, (fields, answer.text)
                error = answer.json()["error"]
                assert list(error) == ["message", "type", "param", "code"] and error["type"] == "invalid_request_error"
                assert error["param"].split(".")[0] == param and f"{param}" in error["message"], fields
        assert "Prefill" not in router.shard.steps()
        assert await router.metric('tgi_request_failure{err="validation"}') == 2 * len(REFUSED)
        answer = await router.client.post(CHAT, json=body(CHAT, messages=[{"role": "nobody", "content": "a"}]))
        assert answer.status_code == 422 and "nobody speaks" in answer.json()["error"]["message"]
        assert await router.metric('tgi_request_failure{err="template"}') == 1


async def test_errors_are_openais_objects_whatever_fails(directory):
    async with running_router(directory, options={"api_key": "k", "max_concurrent_requests": 1}) as router:
        assert (await router.client.post(CHAT, json={})).json()["error"]["code"] == "unauthorized"
        router.client.headers["authorization"] = "Bearer k"
        given = [
            (await router.client.post(CHAT, content=b"{", headers={"content-type": "application/json"}), 400),
            (await router.client.post(COMPLETIONS, content=b"{}"), 415),
            (await router.client.get("/v1/nothing"), 404),
            (await router.client.get("/v1/models/other"), 404),
            (await router.client.get(CHAT), 405),
            (await router.client.post(COMPLETIONS, json=body(COMPLETIONS, n=2)), 429),
        ]
        for answer, status in given:
            assert answer.status_code == status and set(answer.json()["error"]) == {"message", "type", "param", "code"}
        router.shard.failures["Prefill"] = "broken"
        answer = await router.client.post(CHAT, json=body(CHAT, stream=True))
        assert answer.status_code == 424 and answer.json()["error"]["type"] == "server_error"
        router.shard.failures["Decode"] = "broken"
        *chunks, last = await streamed(router, CHAT)
        assert len(chunks) == 2 and last["error"]["message"].endswith("Server error")
        assert last["error"]["code"] == "generation"
        assert await router.metric('tgi_request_failure{err="generation"}') == 2


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_frees_all_its_rows(directory, stream):
    async with running_router(directory, step_s=0.01) as router:
        fields = {"prompt": ["a", "b"], "n": 2, "max_tokens": 900, "stream": stream}
        asking = asyncio.ensure_future(router.client.post(COMPLETIONS, json=body(COMPLETIONS, **fields)))
        async with asyncio.timeout(5):
            while "Decode" not in router.shard.steps():
                await asyncio.sleep(0.01)
        assert len(sent(router)) == 4
        asking.cancel()
        await router.until_idle()
        assert await router.metric('tgi_request_failure{err="dropped"}') == 1


async def test_one_failing_answer_fails_all(directory):
    async with running_router(directory) as router:
        router.shard.fail_after["b"] = 2
        for stream in (False, True):
            answer = await router.client.post(COMPLETIONS, json=body(COMPLETIONS, prompt=["a", "b"], stream=stream))
            assert "no room" in answer.text and answer.status_code == (200 if stream else 424)
            await router.until_idle()
        assert await router.metric('tgi_request_failure{err="generation"}') == 2


async def test_the_list_of_models(directory):
    async with running_router(directory) as router:
        listed = (await router.client.get("/v1/models")).json()
        assert listed["object"] == "list" and [model["id"] for model in listed["data"]] == [str(directory)]
        assert (await router.client.get(f"/v1/models/{directory}")).json() == listed["data"][0]


async def test_without_a_template_there_are_completions(directory):
    async with running_router(directory, template=None) as router:
        answer = await router.client.post(CHAT, json=body(CHAT))
        assert answer.status_code == 422 and "/v1/completions" in answer.json()["error"]["message"]
        assert answer.json()["error"]["code"] == "template_error"
        assert (await router.client.post(COMPLETIONS, json=body(COMPLETIONS))).status_code == 200


async def test_an_adapter_is_a_model_of_its_name(directory):
    async with running_router(directory, adapters=("law",)) as router:
        served = (await router.client.get("/v1/models")).json()["data"]
        assert [(model["id"], model.get("parent")) for model in served][1:] == [("law", served[0]["id"])]
        assert (await router.client.get("/v1/models/law")).json() == served[1]
        for name in ("law", served[0]["id"], "gpt-9"):
            body = {"model": name, "prompt": "a", "max_tokens": 1}
            assert (await router.client.post("/v1/completions", json=body)).json()["model"] == name
        asked = {"model": "law", "prompt": "a", "max_tokens": 1, "lora_id": "verse"}
        assert (await router.client.post("/v1/completions", json=asked)).status_code == 422
        assert [request.adapter_id for request in router.sent()] == ["law", "", ""]
