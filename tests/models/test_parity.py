"""Every case against transformers in float32: the same logits at every position, the same greedy tokens."""

import pytest
import torch

from oracles.build import ANSWER_LEN
from oracles.driver import Driver
from oracles.table import CASES

every_case = pytest.mark.parametrize("oracle", [case.name for case in CASES], indirect=True)
cut_anywhere = [case.name for case in CASES if case.pictures is None or case.pictures.types is None]
every_cut = pytest.mark.parametrize("oracle", cut_anywhere, indirect=True)


def driver_of(oracle):
    """Rows as long as the reference's sequences."""
    reference = oracle.reference
    return Driver(oracle.load(), reference.spans, images=reference.images, prompts=[*map(len, reference.prompts)])


def close(oracle):
    """How exact the answers must be."""
    return {"atol": oracle.case.tolerance, "rtol": 0.0}


@every_case
def test_a_prompt_in_one_step(oracle):
    driver = driver_of(oracle)
    sequence, expected = oracle.reference.sequences[1], oracle.reference.logits[1]
    (logits,) = driver.step([(1, sequence)])
    torch.testing.assert_close(logits, expected, **close(oracle))


@every_cut
def test_only_some_logits_of_two_prompts(oracle):
    """In the order in which they are asked for; a first chunk of each is asked for none."""
    driver = driver_of(oracle)
    (first, second), (logits1, logits2) = oracle.reference.sequences[:2], oracle.reference.logits[:2]
    assert len(driver.pick([(0, first[:3]), (1, second[:4])], [])) == 0
    picked = driver.pick([(0, first[3:9]), (1, second[4:9])], [10, 5, 7])
    expected = torch.stack([logits2[8], logits1[8], logits2[5]])
    torch.testing.assert_close(picked, expected, **close(oracle))


@every_case
def test_a_ragged_batch_answers_greedily(oracle):
    driver = driver_of(oracle)
    answers, logits = driver.greedy(oracle.reference.prompts, ANSWER_LEN)
    assert answers == oracle.reference.answers
    for row, expected in zip(logits, oracle.reference.logits, strict=True):
        torch.testing.assert_close(row, expected, **close(oracle))


@every_cut
def test_chunks_beside_a_decoding_row(oracle):
    """Row 1 comes in chunks of 6 and then token by token, while row 0 decodes: steps with both kinds of rows."""
    driver = driver_of(oracle)
    (slow, fast), (slow_logits, fast_logits) = oracle.reference.sequences[:2], oracle.reference.logits[:2]
    (got,) = driver.step([(0, slow[:4])])
    torch.testing.assert_close(got, slow_logits[:4], **close(oracle))
    chunks = [fast[start : start + 6] for start in range(0, 18, 6)] + [[token] for token in fast[18:]]
    done = 0
    for at, chunk in enumerate(chunks[: len(slow) - 4], start=4):
        decoded, got = driver.step([(0, slow[at : at + 1]), (1, chunk)])
        torch.testing.assert_close(decoded, slow_logits[at : at + 1], **close(oracle))
        torch.testing.assert_close(got, fast_logits[done : done + len(chunk)], **close(oracle))
        done += len(chunk)


@pytest.mark.parametrize("oracle", [case.name for case in CASES if case.shares], indirect=True)
def test_a_cached_prefix_is_shared(oracle):
    """Row 1 starts with ten slots that row 0 filled, then goes its own way."""
    driver = Driver(oracle.load(), [oracle.reference.spans[1]] * 2, images=[oracle.reference.images[1]] * 2)
    sequence, expected = oracle.reference.sequences[1], oracle.reference.logits[1]
    driver.step([(0, sequence[:14])])
    driver.slots[1, :10] = driver.slots[0, :10]
    driver.lens[1] = 10
    (logits,) = driver.step([(1, sequence[10:])])
    torch.testing.assert_close(logits, expected[10:], **close(oracle))
