"""Models that keep other states than keys and values of their tokens, under routers of every generation.

All but the model is as for any other.
"""

import json

import pytest
import torch

from conformance.router_generations import GENERATIONS
from conformance.scripted_router import ScriptedRouter, prompt_ids
from oracles.driver import Driver
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_server.distributed.group import SingleRank
from text_generation_server.errors import UnsupportedModel
from text_generation_server.models.loading import ModelOptions, load_model
from text_generation_server.serve import check_guesses

MAMBA = {"model_type": "mamba", "vocab_size": 257, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 6}
BAMBA = {
    "model_type": "bamba", "vocab_size": 257, "hidden_size": 24, "num_hidden_layers": 3, "intermediate_size": 33,
    "num_attention_heads": 4, "num_key_value_heads": 2, "attn_layer_indices": [1], "mamba_n_heads": 8,
    "mamba_d_state": 6,
}  # fmt: skip
T5 = {
    "model_type": "t5", "vocab_size": 257, "d_model": 32, "d_ff": 48, "d_kv": 8, "num_heads": 4, "num_layers": 2,
    "decoder_start_token_id": 7, "tie_word_embeddings": False,
}  # fmt: skip
TEXTS = {"goes on": 14, "stays a while, and then": 5, "x" * 80: 6, "comes later": 7}


def load(config, folder):
    (folder / "config.json").write_text(json.dumps(config))
    options = ModelOptions(torch.float32, torch.device("cpu"), random_weights=True)
    return load_model(folder, options, SingleRank(), lambda _done, _total: None)


@pytest.fixture(scope="module", params=[MAMBA, BAMBA, T5], ids=lambda config: config["model_type"])
def model(request, tmp_path_factory):
    return load(request.param, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def alone(model):
    """What each text is answered by itself."""
    answers = {}
    for text, new in TEXTS.items():
        ids = prompt_ids(text)
        prompt = ids if model.encoder is None else [model.encoder.start]
        ((answers[text],), _) = Driver(model, [len(prompt) + new], sources=[ids]).greedy([prompt], new)
    assert len({token for answer in answers.values() for token in answer}) > 6
    return answers


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda generation: generation.name)
def test_rows_come_and_go(start, model, alone, generation):
    """Twice the same, so that rows and prompts have been there before; one client leaves in between."""
    shard = start(model=model, num_slots=4096, max_len=512)
    router = ScriptedRouter(generation, shard.path)
    router.start_up()
    for _ in range(2):
        asked = {}
        for text, new in TEXTS.items():
            asked[router.submit(text, new)] = text
            leaves = router.submit("leaves", 30)
            router.step()
            router.step()
            if leaves in router.entries:
                router.disconnect(leaves)
        router.run()
        for request_id, text in asked.items():
            assert (router.done[request_id].outcome, router.done[request_id].tokens) == ("finished", alone[text])
    router.check_health()
    router.caller.close()
    shard.assert_idle()


def test_routers_are_told_what_such_models_cannot_do(start, model):
    info = start(model=model).v3.stub.Info(pb_v3.InfoRequest())
    assert (info.use_prefix_caching, info.support_chunking) == (False, model.encoder is None)


def test_an_answer_goes_on_where_its_last_stay_ended(start, model, alone):
    """What was generated comes back behind the prompt, and is the decoder's even where an encoder reads the prompt."""
    caller, (text, new) = start(model=model).v3, next(iter(TEXTS.items()))
    given = {"add_special_tokens": True, "generated_ids": alone[text][:5]}
    rest = caller.answer(caller.request(1, text, new - 5, **given))
    assert [token for generation in rest for token in generation.tokens.ids] == alone[text][5:]


def test_guesses_change_no_token_or_are_refused(start, model, alone):
    if model.encoder is None:
        with pytest.raises(UnsupportedModel, match="cannot take tokens back"):
            check_guesses(model, 2)
        return
    caller = start(model=model, speculate=2).v3
    for text, new in TEXTS.items():
        answer = caller.answer(caller.request(1, text, new, add_special_tokens=True))
        assert [token for generation in answer for token in generation.tokens.ids] == alone[text]
