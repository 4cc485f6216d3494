"""Our router before our shard: whatever parts of an answer get cache space at once, clients see the same answer."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import httpx
import pytest

from conformance.conftest import ROWS
from conformance.made_tokenizers import byte_level
from conformance.recitals import CUE, recite
from mocks.mock_model import MockModel, next_logits
from mocks.running_router import events, listening, router_settings
from text_generation_router import queue

SAY = chr(CUE)
SCRIPT = f"é🙂 stop 🙃b{SAY}"
SAID = "é🙂 stop 🙃b"
WORDS = {"type": "regex", "value": "([a-z]{3}🙂){9}"}

REQUESTS: list[dict[str, Any]] = [
    {"inputs": SCRIPT, "parameters": {"stop": stops}} for stops in ([], ["stop"], ["🙂 st", "p "], ["🙃"], ["</s>"])
] + [
    {"inputs": SCRIPT, "parameters": {"stop": ["zz"], "max_new_tokens": count}} for count in (3, 5, 6, 7, 9, 10, 16, 18)
] + [
    {"inputs": "a long prompt" * 3 + SCRIPT, "parameters": {"truncate": 9, "max_new_tokens": 30}},
    {"inputs": "abc", "parameters": {"max_new_tokens": 40, "seed": 5, "temperature": 1.5}},
    {"inputs": "abc", "parameters": {"max_new_tokens": 40, "repetition_penalty": 1.3, "frequency_penalty": 0.3}},
    {"inputs": "abc", "parameters": {"max_new_tokens": 40, "watermark": True, "do_sample": True, "seed": 2}},
    {"inputs": "abc", "parameters": {"max_new_tokens": 90, "grammar": WORDS, "do_sample": True, "seed": 9}},
    {"inputs": "abc", "parameters": {"max_new_tokens": 40, "top_n_tokens": 2}},
]  # fmt: skip


def recite_or_not(tokens: list[int]) -> list[float]:
    return recite(tokens) if CUE in tokens else next_logits(tokens)


async def ask(client: httpx.AsyncClient, request: dict[str, Any]) -> list[dict[str, Any]]:
    body = request | {"parameters": {"details": True} | request["parameters"]}
    async with client.stream("POST", "/generate_stream", json=body) as response:
        return [event async for event in events(response)]


@pytest.mark.parametrize("speculate", [0, 2])
async def test_no_stay_can_be_seen(start, tmp_path, monkeypatch, speculate):
    shard = start(model=MockModel(logits=recite_or_not), speculate=speculate)
    settings = replace(router_settings(byte_level(tmp_path), shard.path), max_batch_size=ROWS)
    async with listening(settings) as (client, _, _):
        whole = [await ask(client, request) for request in REQUESTS]
        for request, received in zip(REQUESTS, whole, strict=True):
            end = received[-1]
            texts = "".join(event["token"]["text"] for event in received)
            assert end["generated_text"] == texts.replace("<s>", "").replace("</s>", ""), json.dumps(request)
            assert end["details"]["generated_tokens"] == len(received)
        ends = [received[-1] for received in whole[:5]]
        assert [(end["generated_text"], end["details"]["finish_reason"]) for end in ends] == [
            (SAID, "eos_token"),
            ("é🙂 stop", "stop_sequence"),
            ("é🙂 st", "stop_sequence"),
            ("é🙂 stop 🙃", "stop_sequence"),
            (SAID, "eos_token"),
        ]  # fmt: skip
        for stay in (1, 3, 5, 8):
            monkeypatch.setattr(queue, "STAY", stay)
            in_stays = await asyncio.gather(*(ask(client, request) for request in REQUESTS))
            for request, received, expected in zip(REQUESTS, in_stays, whole, strict=True):
                assert received == expected, json.dumps([stay, request])
    shard.assert_idle()
