"""Which tokens share a block of the prefill kernel, where layers attend to images."""

import torch

from text_generation_server.attention.viewing import blocks_of


def test_tokens_side_by_side_that_see_the_same_share_blocks():
    rows = torch.tensor([40, 40, 40, 40, 40, 60, 60, 40, 0, 0])
    counts = torch.tensor([0, 7, 7, 7, 7, 7, 9, 7, 0, 0])
    blocks, count = blocks_of(rows, counts, 3)
    lines = [(40, 0, 1, 0), (40, 1, 3, 7), (40, 4, 1, 7), (60, 5, 1, 7), (60, 6, 1, 9), (40, 7, 1, 7), (0, 8, 2, 0)]
    assert count.tolist() == [len(lines)]
    assert blocks[: len(lines)].tolist() == [[*line, 0] for line in lines]
    assert blocks.shape == (10, 5) and not blocks[len(lines) :, 2].any()


def test_a_step_of_one_token():
    blocks, count = blocks_of(torch.tensor([5]), torch.tensor([2]), 16)
    assert blocks.tolist() == [[5, 0, 1, 2, 0]] and count.tolist() == [1]
