"""The host's random numbers: in range, exact in fp32, evenly spread over seeds and over token indices."""

from collections import Counter

import pytest
import torch

from text_generation_server.sampling.uniforms import uniform

BINS = 64
DRAWS = 20_000
CHI_SQUARE_LIMIT = 120.0  # 63 degrees of freedom: exceeded by chance once in 20,000 times


def chi_square(values: list[float]) -> float:
    expected = len(values) / BINS
    counts = Counter(int(value * BINS) for value in values)
    return sum((counts[b] - expected) ** 2 / expected for b in range(BINS))


def correlation(xs: list[float], ys: list[float]) -> float:
    return float(torch.corrcoef(torch.tensor([xs, ys], dtype=torch.float64))[0, 1])


@pytest.mark.parametrize("seed", [0, 1, 42, 2**32, 2**63, 2**64 - 1])
def test_the_tokens_of_one_seed_are_uniform(seed: int) -> None:
    values = [uniform(seed, index) for index in range(DRAWS)]
    assert all(0.0 <= value < 1.0 for value in values)
    assert chi_square(values) < CHI_SQUARE_LIMIT
    assert abs(correlation(values[:-1], values[1:])) < 0.03


@pytest.mark.parametrize("index", [0, 1, 1000])
@pytest.mark.parametrize("base", [0, 2**63, 2**64 - DRAWS])
def test_neighbouring_seeds_are_uniform_and_uncorrelated(index: int, base: int) -> None:
    values = [uniform(base + offset, index) for offset in range(DRAWS)]
    assert chi_square(values) < CHI_SQUARE_LIMIT
    assert abs(correlation(values[:-1], values[1:])) < 0.03


def test_successive_tokens_of_successive_seeds_fill_the_plane() -> None:
    cells = Counter(
        (int(uniform(seed, index) * 8), int(uniform(seed, index + 1) * 8))
        for seed in range(200)
        for index in range(0, 100, 2)
    )
    expected = 10_000 / 64
    assert sum((cells[x, y] - expected) ** 2 / expected for x in range(8) for y in range(8)) < CHI_SQUARE_LIMIT


def test_all_64_bits_of_the_seed_count() -> None:
    seeds = [0, *(2**bit for bit in range(64))]
    assert len({tuple(uniform(seed, index) for index in range(3)) for seed in seeds}) == len(seeds)


def test_values_are_exact_in_fp32_and_stay_below_one() -> None:
    values = [uniform(7, index) for index in range(5_000)]
    stored = torch.tensor(values, dtype=torch.float32)
    assert stored.double().tolist() == values
    assert float(stored.max()) < 1.0
    assert all((value * 2**24).is_integer() for value in values)


def test_a_request_keeps_its_numbers_across_releases() -> None:
    assert [int(uniform(42, index) * 2**24) for index in range(3)] == [5759482, 16034769, 8159591]
