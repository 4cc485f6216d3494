"""A config.json is all that a benchmark needs."""

import json

import httpx

CONFIG = {
    "model_type": "llama", "vocab_size": 512, "hidden_size": 160, "intermediate_size": 128, "num_hidden_layers": 2,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 256, "eos_token_id": 2,
}  # fmt: skip
"""Heads of 80 numbers, which routers and shards elsewhere share no prefixes of."""


def test_random_weights_answer_from_a_bare_config(launch, tmp_path):
    model = tmp_path / "bare"
    model.mkdir()
    (model / "config.json").write_text(json.dumps(CONFIG))
    running = launch("--load-format", "dummy", "--dtype", "float32", model=str(model))
    body = {"inputs": "Löwe", "parameters": {"max_new_tokens": 40, "details": True, "decoder_input_details": False}}
    answer = httpx.post(f"{running.url}/generate", json=body, timeout=60)
    details = answer.json()["details"]
    assert (details["finish_reason"], details["generated_tokens"]) == ("length", 40)
    assert int(answer.headers["x-prompt-tokens"]) == len("Löwe".encode())
    assert len({token["id"] for token in details["tokens"]}) > 8
    httpx.post(f"{running.url}/generate", json=body, timeout=60).raise_for_status()
    assert "tgi_prefix_cache_hit_tokens 4\n" in httpx.get(f"{running.url}/metrics").text
    assert running.stop() == 0
