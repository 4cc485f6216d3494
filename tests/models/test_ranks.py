"""Every case on two and on four ranks: together they answer what transformers does.

Vocabulary and inner sizes do not divide, and on four ranks most cases hold their key/value heads twice.
"""

import pytest
import torch

from oracles.build import ANSWER_LEN
from oracles.driver import Driver
from oracles.lora import place, save_adapter
from oracles.ranks import Asked, answers_of
from oracles.table import CASES
from text_generation_server.adapters.targets import targets_of
from text_generation_server.distributed.group import join_group
from text_generation_server.errors import StartError

DECODED = 4
"""Tokens that come one by one."""


ADAPTED = ["llama", "phi3", "gpt_neox", "gpt2", "falcon-40b", "qwen2_moe", "mamba", "granite-hybrid"]
"""Cases that are also asked with two adapters beside none."""


@pytest.fixture(scope="module")
def adapters_of(oracle_of, tmp_path_factory):
    """Directories of two adapters of different ranks to each of those cases."""
    made = {}
    for name in ADAPTED:
        shapes, folder = targets_of(oracle_of(name).load().linears).shapes, tmp_path_factory.mktemp("adapters")
        made[name] = [folder / "law", folder / "verse"]
        for rank, directory in zip((2, 5), made[name], strict=True):
            save_adapter(directory, shapes, rank, seed=rank)
    return made


@pytest.fixture(scope="module", params=[2, 4])
def world(request, oracle_of, adapters_of, tmp_path_factory):
    """What each of so many ranks answers; one group of processes computes all cases."""
    oracles = {case.name: oracle_of(case.name) for case in CASES}
    models = {
        name: Asked(
            oracle.directory,
            oracle.reference.sequences,
            images=oracle.reference.images,
            prompts=[*map(len, oracle.reference.prompts)],
        )
        for name, oracle in oracles.items()
    }
    for name, adapters in adapters_of.items():
        models[f"{name} adapted"] = Asked(oracles[name].directory, oracles[name].reference.sequences, adapters)
    return answers_of(request.param, models, DECODED, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("oracle", [case.name for case in CASES], indirect=True)
def test_each_rank_has_the_whole_answer(oracle, world):
    """Logits of a ragged batch, the last tokens decoded one by one; the likeliest tokens are the reference's answer."""
    for rank in world:
        logits = rank.models[oracle.case.name]
        for row, answer, expected in zip(logits, oracle.reference.answers, oracle.reference.logits, strict=True):
            torch.testing.assert_close(row, expected, atol=oracle.case.tolerance, rtol=0.0)
            assert row[-ANSWER_LEN - 1 : -1].argmax(-1).tolist() == answer


@pytest.mark.parametrize("oracle", ADAPTED, indirect=True)
def test_each_rank_has_its_part_of_adapters(oracle, world, adapters_of):
    """Some sequences with one adapter, some with the other or none, as one rank answers that holds them whole."""
    name, model = oracle.case.name, oracle.load()
    asked = Asked(oracle.directory, oracle.reference.sequences, adapters_of[name])
    plain = Driver(model, oracle.reference.spans).follow(asked.sequences, DECODED)
    place(model, asked.adapters)
    expected = Driver(model, oracle.reference.spans, asked.numbers).follow(asked.sequences, DECODED)
    for rank in world:
        for row, wanted in zip(rank.models[f"{name} adapted"], expected, strict=True):
            torch.testing.assert_close(row, wanted, atol=10 * oracle.case.tolerance, rtol=1e-4)
    changed = [not torch.allclose(a, b, atol=0.05) for a, b in zip(plain, expected, strict=True)]
    assert changed == [number > 0 for number in asked.numbers]


def test_ranks_exchange_what_they_have(world):
    numbers = [10 + rank for rank in range(len(world))]
    assert [rank.exchanged for rank in world] == [([10], numbers, 10)] * len(world)


def test_several_ranks_need_a_place_to_meet():
    with pytest.raises(StartError, match="2 ranks need an address and a port to meet at, got None and 29500"):
        join_group(0, 2, None, 29500, torch.device("cpu"))
