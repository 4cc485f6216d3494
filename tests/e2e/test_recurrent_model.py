"""A saved model whose state lives in rows, from the launcher to the client, as transformers answers."""

from concurrent.futures import ThreadPoolExecutor

import httpx

from oracles.build import ANSWER_LEN, build
from oracles.case import TOKENS, Case
from text_generation_server.tokenization.made_up import BYTES, made_up_tokenizer

CONFIG = {**TOKENS, "vocab_size": BYTES, "eos_token_id": None, "hidden_size": 32, "num_hidden_layers": 2}


def test_clients_get_what_transformers_answers(launch, tmp_path):
    """Several at once, on two ranks; prompts come again, which nothing is left of."""
    reference = build(Case("mamba-bytes", "", "mamba", CONFIG, ""), tmp_path)
    made_up_tokenizer(BYTES).save(str(tmp_path / "tokenizer.json"))
    running = launch("--num-shard", "2", "--dtype", "float32", model=str(tmp_path))

    def ask(prompt):
        parameters = {"max_new_tokens": ANSWER_LEN, "details": True}
        body = {"inputs": bytes(prompt).decode(), "parameters": parameters}
        answer = httpx.post(f"{running.url}/generate", json=body, timeout=60).json()
        return [token["id"] for token in answer["details"]["tokens"]]

    with ThreadPoolExecutor(len(reference.prompts)) as clients:
        for _ in range(2):
            assert list(clients.map(ask, reference.prompts)) == reference.answers
    assert "Prefix caching is off for this model" in running.output
    assert running.stop() == 0
