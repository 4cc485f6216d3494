"""Every case on two and on four ranks: together they answer what transformers does.

Vocabulary and inner sizes do not divide, and on four ranks most cases hold their key/value heads twice.
"""

import pytest
import torch

from oracles.build import ANSWER_LEN
from oracles.ranks import answers_of
from oracles.table import CASES
from text_generation_server.distributed.group import join_group
from text_generation_server.errors import StartError

DECODED = 4
"""Tokens that come one by one."""


@pytest.fixture(scope="module", params=[2, 4])
def world(request, oracle_of, tmp_path_factory):
    """What each of so many ranks answers; one group of processes computes all cases."""
    oracles = [oracle_of(case.name) for case in CASES]
    models = {oracle.directory: oracle.reference.sequences for oracle in oracles}
    return answers_of(request.param, models, DECODED, tmp_path_factory.mktemp("ranks"))


@pytest.mark.parametrize("oracle", [case.name for case in CASES], indirect=True)
def test_each_rank_has_the_whole_answer(oracle, world):
    """Logits of a ragged batch, the last tokens decoded one by one; the likeliest tokens are the reference's answer."""
    for rank in world:
        logits = rank.models[oracle.case.name]
        for row, answer, expected in zip(logits, oracle.reference.answers, oracle.reference.logits, strict=True):
            torch.testing.assert_close(row, expected, atol=oracle.case.tolerance, rtol=0.0)
            assert row[-ANSWER_LEN - 1 : -1].argmax(-1).tolist() == answer


def test_ranks_exchange_what_they_have(world):
    numbers = [10 + rank for rank in range(len(world))]
    assert [rank.exchanged for rank in world] == [([10], numbers, 10)] * len(world)


def test_several_ranks_need_a_place_to_meet():
    with pytest.raises(StartError, match="2 ranks need an address and a port to meet at, got None and 29500"):
        join_group(0, 2, None, 29500, torch.device("cpu"))
