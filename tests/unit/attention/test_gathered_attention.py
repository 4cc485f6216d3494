"""Gathered attention against scores written out in float64: long rows in blocks, padded rows, with a bias or none."""

import math

import pytest
import torch

from text_generation_server.attention.base import LayerAttention
from text_generation_server.attention.gathered import QUERY_BLOCK, GatheredPlan, RelativeBias
from text_generation_server.cache.paged import PagedSpec

HEADS, DIM, BUCKETS, FARTHEST = 3, 4, 8, 20
CPU = torch.device("cpu")


def bucket(ahead: int, causal: bool) -> int:
    """arXiv 1910.10683: half of a direction's buckets for a distance each, the others for ranges up to the farthest."""
    first, buckets = (0, BUCKETS) if causal else (BUCKETS // 2 if ahead > 0 else 0, BUCKETS // 2)
    far, exact = (max(-ahead, 0) if causal else abs(ahead)), buckets // 2
    if far < exact:
        return first + far
    ranged = exact + int(math.log(far / exact) / math.log(FARTHEST / exact) * (buckets - exact))
    return first + min(ranged, buckets - 1)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize(
    "lens", [((1, 5), (1, 30), (1, 1)), ((7, 7), (1, 40), (3, 9)), ((QUERY_BLOCK + 9, QUERY_BLOCK + 30),)]
)
def test_scores_written_out(lens, biased, causal):
    torch.manual_seed(0)
    keys, tokens = max(count for _, count in lens), sum(count for count, _ in lens)
    spec = PagedSpec(1, HEADS, DIM, torch.float32, CPU)
    cache = spec.allocate(4 * keys, 1, keys)
    cache.layer(0).normal_()
    weight = torch.randn(BUCKETS, HEADS)
    table = torch.randperm(4 * keys)[: len(lens) * keys].view(len(lens), keys)
    q = torch.randn(tokens, HEADS, DIM)
    bias = RelativeBias.of(weight, FARTHEST, causal) if biased else None
    queries, seen = zip(*lens, strict=True)
    got = GatheredPlan(table, range(len(lens)), queries, seen, bias, causal).run(q, LayerAttention(0, 0, 0.7), cache)
    far = max(total for _, total in lens)
    biases = torch.stack(
        [weight[bucket(ahead, causal)] for ahead in range(-far, far + 1)], 1
    ).double()  # [H, distances]
    expected = []
    for row, (own, (count, total)) in enumerate(zip(q.double().split(queries), lens, strict=True)):
        k, v = (each(0)[table[row, :total]].double() for each in (cache.keys, cache.values))
        ahead = torch.arange(total) - torch.arange(total - count, total)[:, None]
        scores = torch.einsum("qhd,khd->hqk", own, k) * 0.7 + (biases[:, ahead + far] if biased else 0.0)
        if causal:
            scores = scores.masked_fill(ahead > 0, -torch.inf)
        expected.append(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1))
    torch.testing.assert_close(got, torch.cat(expected).float(), atol=1e-5, rtol=1e-5)
