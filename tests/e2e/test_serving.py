"""A real model answers real clients."""

import json

import grpc
import httpx
import pytest
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from huggingface_hub import InferenceClient

from text_generation import AsyncClient, Client
from text_generation_protocol.v2 import generate_pb2 as v2
from text_generation_protocol.v2.generate_pb2_grpc import TextGenerationServiceStub as V2Stub

CAPITAL = "The capital of France is"


def test_generate_answers_in_english(server):
    body = {"inputs": "What is Deep Learning?", "parameters": {"max_new_tokens": 20}}
    answer = httpx.post(f"{server.url}/generate", json=body, timeout=60)
    text = answer.json()["generated_text"]
    assert answer.status_code == 200 and "learning" in text.lower(), text
    assert int(answer.headers["x-generated-tokens"]) == 20


def test_generate_is_right(server):
    body = {"inputs": CAPITAL, "parameters": {"max_new_tokens": 1, "details": True, "top_n_tokens": 2}}
    answer = httpx.post(f"{server.url}/generate", json=body, timeout=60).json()
    assert answer["generated_text"] == " Paris"
    details = answer["details"]
    assert details["finish_reason"] == "length" and details["tokens"][0]["text"] == " Paris"
    assert details["top_tokens"][0][0] == details["tokens"][0]


def test_several_ranks_answer_as_one(ranked):
    body = {"inputs": CAPITAL, "parameters": {"max_new_tokens": 5}}
    answer = httpx.post(f"{ranked.url}/generate", json=body, timeout=60).json()
    assert answer["generated_text"].startswith(" Paris")


def test_the_stream_says_the_same(server):
    body = {"inputs": CAPITAL, "parameters": {"max_new_tokens": 12}}
    whole = httpx.post(f"{server.url}/generate", json=body, timeout=60).json()["generated_text"]
    events = []
    with httpx.stream("POST", f"{server.url}/generate_stream", json=body, timeout=60) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = [json.loads(line[5:]) for line in stream.iter_lines() if line.startswith("data:")]
    assert [e["index"] for e in events] == list(range(1, 13))
    assert events[-1]["generated_text"] == whole == "".join(e["token"]["text"] for e in events)


def test_a_chat_prompt_ends_by_itself(server):
    question = "What is the capital of France? Answer in one sentence."
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    body = {"inputs": prompt, "parameters": {"max_new_tokens": 60, "details": True}}
    answer = httpx.post(f"{server.url}/generate", json=body, timeout=60).json()
    assert answer["details"]["finish_reason"] == "eos_token" and "Paris" in answer["generated_text"]


def test_our_client(server):
    client = Client(server.url)
    response = client.generate(CAPITAL, max_new_tokens=4)
    assert response.generated_text.startswith(" Paris") and response.details.generated_tokens == 4
    streamed = [r.token.text for r in client.generate_stream(CAPITAL, max_new_tokens=4)]
    assert "".join(streamed) == response.generated_text


async def test_our_async_client(server):
    client = AsyncClient(server.url)
    response = await client.generate(CAPITAL, max_new_tokens=4)
    streamed = [r.token.text async for r in client.generate_stream(CAPITAL, max_new_tokens=4)]
    assert "".join(streamed) == response.generated_text


def test_the_hub_client(server):
    client = InferenceClient(server.url)
    # `/` answers with the prompt in front unless it is told not to.
    assert client.text_generation(CAPITAL, max_new_tokens=1) == f"{CAPITAL} Paris"
    assert client.text_generation(CAPITAL, max_new_tokens=1, return_full_text=False) == " Paris"
    assert "".join(client.text_generation(CAPITAL, max_new_tokens=3, stream=True)).startswith(" Paris")


def test_seeded_sampling_repeats_itself_in_company(server):
    def ask(client: httpx.Client, seed: int) -> str:
        parameters = {"max_new_tokens": 12, "do_sample": True, "temperature": 0.9, "seed": seed}
        return client.post("/generate", json={"inputs": "Once upon a time", "parameters": parameters}).json()[
            "generated_text"
        ]

    with httpx.Client(base_url=server.url, timeout=60) as client:
        assert ask(client, 7) == ask(client, 7) != ask(client, 8)


def test_stop_sequences_end_the_text(server):
    body = {"inputs": "1, 2, 3, 4, 5,", "parameters": {"max_new_tokens": 40, "stop": ["8"], "details": True}}
    answer = httpx.post(f"{server.url}/generate", json=body, timeout=60).json()
    assert answer["generated_text"].endswith("8") and answer["details"]["finish_reason"] == "stop_sequence"


def test_info_and_metrics_tell_the_facts(server):
    info = httpx.get(f"{server.url}/info").json()
    assert info["max_total_tokens"] == 8192 and info["router"] == "text-generation-router"
    metrics = httpx.get(f"{server.url}/metrics").text
    assert "tgi_request_count" in metrics and "tgi_batch_inference_duration_bucket" in metrics


def test_the_socket_shows_both_services(server):
    with grpc.insecure_channel(f"unix://{server.prefix}-0") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        (answer,) = stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))
        names = {service.name for service in answer.list_services_response.service}
    assert {"generate.v2.TextGenerationService", "generate.v3.TextGenerationService"} <= names


def test_a_v2_router_is_served_beside_ours(launch):
    running = launch()
    neutral = v2.NextTokenChooserParameters(temperature=1.0, top_p=1.0, typical_p=1.0, repetition_penalty=1.0)
    request = v2.Request(
        id=1,
        inputs=CAPITAL,
        truncate=100,
        parameters=neutral,
        stopping_parameters=v2.StoppingCriteriaParameters(max_new_tokens=3),
    )
    with grpc.insecure_channel(f"unix://{running.prefix}-0") as channel:
        stub = V2Stub(channel)
        answer = stub.Prefill(v2.PrefillRequest(batch=v2.Batch(id=10**6, requests=[request], size=1)))
        texts = [answer.generations[0].tokens.texts[0]]
        while answer.HasField("batch"):
            answer = stub.Decode(v2.DecodeRequest(batches=[answer.batch]))
            texts.append(answer.generations[0].tokens.texts[0])
    assert texts[0] == " Paris" and answer.generations[0].generated_text.text == "".join(texts)
    running.stop()


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"{not json", 400),
        (b'{"parameters":{}}', 422),
        (b'{"inputs":""}', 422),
        (b'{"inputs":"x","parameters":{"top_p":3}}', 422),
    ],
)
def test_bad_input_is_answered_and_serving_goes_on(server, content, status):
    answer = httpx.post(f"{server.url}/generate", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == status and answer.json()["error"]
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_a_prompt_that_is_too_long_is_refused(server):
    answer = httpx.post(f"{server.url}/generate", json={"inputs": "word " * 9000}, timeout=60)
    assert answer.status_code == 422 and "must be <= 8192" in answer.json()["error"]
