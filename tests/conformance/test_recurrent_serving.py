"""A model whose state lives in rows, under routers of every generation: all but the model is as for any other."""

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

CONFIG = {"model_type": "mamba", "vocab_size": 257, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 6}
TEXTS = {"goes on": 14, "stays a while, and then": 5, "x" * 80: 6, "comes later": 7}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mamba")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    options = ModelOptions(torch.float32, torch.device("cpu"), random_weights=True)
    return load_model(folder, options, SingleRank(), lambda _done, _total: None)


@pytest.fixture(scope="module")
def alone(model):
    """What each text is answered by itself."""
    prompts = [prompt_ids(text) for text in TEXTS]
    most = max(TEXTS.values())
    answers = [Driver(model, [len(prompt) + most]).greedy([prompt], most)[0][0] for prompt in prompts]
    assert all(len(set(answer)) > 3 for answer in answers)
    return {text: answer[:new] for (text, new), answer in zip(TEXTS.items(), answers, strict=True)}


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


def test_routers_are_told_to_share_no_prompts(start, model):
    info = start(model=model).v3.stub.Info(pb_v3.InfoRequest())
    assert not info.use_prefix_caching and info.support_chunking


def test_guesses_are_refused(model):
    with pytest.raises(UnsupportedModel, match="cannot take tokens back"):
        check_guesses(model, 2)
