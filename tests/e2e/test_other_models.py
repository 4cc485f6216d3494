"""Saved models of other states than keys and values, from the launcher to the client, as transformers answers."""

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from oracles.build import ANSWER_LEN, build
from oracles.case import LLAMA, Case
from text_generation_server.tokenization.made_up import BYTES, made_up_tokenizer

TOKENS = {"vocab_size": BYTES, "bos_token_id": None, "eos_token_id": None, "pad_token_id": 0}
MAMBA = Case("", "", "mamba", {**TOKENS, "hidden_size": 32, "num_hidden_layers": 2}, "")
BAMBA = Case(
    "",
    "",
    "bamba",
    {**LLAMA, **TOKENS, "num_hidden_layers": 3, "attn_layer_indices": [1], "mamba_n_heads": 8, "mamba_d_state": 5},
    "",
)
T5 = Case("", "", "t5", {**TOKENS, "d_model": 32, "d_kv": 8, "d_ff": 45, "num_layers": 2, "num_heads": 4}, "")
ASKED = {
    "mamba": (AutoModelForCausalLM, {}),
    "bamba": (AutoModelForCausalLM, {}),
    "t5": (AutoModelForSeq2SeqLM, {"decoder_start_token_id": 0}),
}
"""transformers' class, and what it has to be told."""
TEXTS = ("a", "some text", "and another, which is longer than that", "0123456789")


def answers_of(case, directory):
    """transformers' greedy tokens to each text."""
    kind, told = ASKED[case.model_type]
    model = kind.from_pretrained(directory, dtype=torch.float32)
    prompts = [torch.tensor([[*text.encode()]]) for text in TEXTS]
    counted = {"max_new_tokens": ANSWER_LEN, "min_new_tokens": ANSWER_LEN, "do_sample": False}
    return [model.generate(prompt, **told, **counted)[0, -ANSWER_LEN:].tolist() for prompt in prompts]


@pytest.mark.parametrize(("case", "ranks"), [(MAMBA, "1"), (BAMBA, "2"), (T5, "2")], ids=["mamba", "bamba", "t5"])
def test_clients_get_what_transformers_answers(one_thread, launch, tmp_path, case, ranks):
    """Several at once; prompts come again, which nothing is left of."""
    build(case, tmp_path)
    made_up_tokenizer(BYTES).save(str(tmp_path / "tokenizer.json"))
    running = launch("--num-shard", ranks, "--dtype", "float32", model=str(tmp_path))

    def ask(text):
        body = {"inputs": text, "parameters": {"max_new_tokens": ANSWER_LEN, "details": True}}
        answer = httpx.post(f"{running.url}/generate", json=body, timeout=60).json()
        return [token["id"] for token in answer["details"]["tokens"]]

    with ThreadPoolExecutor(len(TEXTS)) as clients:
        answers = [*clients.map(ask, TEXTS)]
        assert answers == answers_of(case, tmp_path) == [*clients.map(ask, TEXTS)]
    assert len({token for tokens in answers for token in tokens}) > 6
    assert "Prefix caching is off for this model" in running.output
    assert running.stop() == 0
