"""Adapters that come and change while three ranks serve: nobody's answer but theirs changes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import httpx

from oracles.lora import save_adapter
from text_generation_demo.asking import Server, adapters_of

SHAPES = {
    "model.layers.3.self_attn.q_proj": (576, 576),
    "model.layers.3.self_attn.o_proj": (576, 576),
    "model.layers.3.mlp.down_proj": (576, 1536),
}


def answer_of(server, question, adapter):
    async def whole():
        return "".join([piece async for piece in server(question, adapter)])

    return asyncio.run(whole())


def test_adapters_come_and_change_while_streams_run(ranked, tmp_path):
    places = [tmp_path / "1", tmp_path / "2"]
    for seed, place in enumerate(places):
        save_adapter(place, SHAPES, 4, seed=seed, layers_to_transform=3)

    def post(route, **body):
        return httpx.post(f"{ranked.url}{route}", json=body, timeout=60).raise_for_status()

    def load(place):
        post("/v1/load_lora_adapter", lora_name="law", lora_path=str(place), load_inplace=True)

    def answer(**more):
        body = {"inputs": "Once upon a time", "parameters": {"max_new_tokens": 8, **more}}
        return post("/generate", **body).json()["generated_text"]

    base, alone = answer(), []
    for place in places:
        load(place)
        alone.append(answer(adapter_id="law"))
    assert len({base, *alone}) == 3
    with ThreadPoolExecutor(3) as clients:
        for at in range(2):
            beside = [clients.submit(answer), clients.submit(answer, adapter_id="law")]
            load(places[at % 2])
            assert answer(adapter_id="law") == alone[at % 2]
            assert (beside[0].result(), beside[1].result() in alone) == (base, True)
    (status,) = httpx.get(f"{ranked.url}/lora_adapters").json()["adapters"]
    assert (status["rank"], status["targets"]) == (4, ["down_proj", "o_proj", "q_proj"])
    hello = [{"role": "user", "content": "Hello"}]
    assert adapters_of(ranked.url) == ["law"]
    assert [answer_of(Server(ranked.url, 8), "Hello", adapter) for adapter in ("law", None)] == [
        post("/v1/chat/completions", model=name, messages=hello, max_tokens=8, temperature=0).json()["choices"][0][
            "message"
        ]["content"]
        for name in ("law", "any")
    ]
    assert httpx.delete(f"{ranked.url}/lora_adapters/law").status_code == 200
    told = httpx.post(f"{ranked.url}/download_lora_adapter", json={"lora_id": str(tmp_path / "3")}, timeout=60)
    assert (told.status_code, "no directory" in told.json()["error"]) == (404, True)
