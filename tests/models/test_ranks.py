"""Every case on two ranks: together they answer what transformers does. Vocabulary and inner sizes do not divide."""

import pytest
import torch

from oracles.build import ANSWER_LEN
from oracles.cases import CASES
from oracles.ranks import answers_of
from text_generation_server.distributed.group import join_group
from text_generation_server.errors import StartError


@pytest.fixture(scope="module")
def answers(oracle_of, tmp_path_factory):
    """Of each rank, by case; one pair of processes computes all."""
    oracles = [oracle_of(case.name) for case in CASES]
    prompts = oracles[0].reference.prompts
    directories = [oracle.directory for oracle in oracles]
    return answers_of(2, directories, prompts, ANSWER_LEN, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("oracle", [case.name for case in CASES], indirect=True)
@pytest.mark.parametrize("rank", [0, 1])
def test_each_of_two_ranks_has_the_whole_answer(oracle, rank, answers):
    tokens, logits = answers[rank].models[oracle.case.name]
    assert tokens == oracle.reference.answers
    for row, expected in zip(logits, oracle.reference.logits, strict=True):
        torch.testing.assert_close(row, expected, atol=1e-4, rtol=0.0)


def test_ranks_exchange_what_they_have(answers):
    assert [rank.exchanged for rank in answers] == [([10], [10, 11], 10)] * 2


def test_several_ranks_need_a_place_to_meet():
    with pytest.raises(StartError, match="2 ranks need an address and a port to meet at, got None and 29500"):
        join_group(0, 2, None, 29500, torch.device("cpu"))
