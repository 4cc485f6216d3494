"""The sampler as a whole: order of rules, choices, log-probabilities, top tokens, histories, independence of rows."""

import math
from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from text_generation_server.sampling.params import SamplingParams, WatermarkParams
from text_generation_server.sampling.sampled import MAX_TIES
from text_generation_server.sampling.sampler import CountsRows, HostSampled, Sampler, SamplingPlan
from text_generation_server.sampling.sanitise import sanitised
from text_generation_server.sampling.uniforms import uniform
from text_generation_server.sampling.watermark import green_lists

CPU = torch.device("cpu")
LAST_UNIFORM = 1 - 2**-24
DRAWN = SamplingParams(do_sample=True)

parameters = st.builds(
    SamplingParams,
    temperature=st.sampled_from([1.0, 0.5, 2.0]),
    top_k=st.sampled_from([0, 1, 3, 10]),
    top_p=st.sampled_from([1.0, 0.3, 0.8]),
    typical_p=st.sampled_from([1.0, 0.4, 0.9]),
    do_sample=st.booleans(),
    repetition_penalty=st.sampled_from([1.0, 1.25]),
    frequency_penalty=st.sampled_from([0.0, 0.75, -0.5]),
    watermark=st.booleans(),
    grammar=st.sampled_from(["", "any"]),
    min_p=st.sampled_from([0.0, 0.05, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.75]),
    count_penalty=st.sampled_from([0.0, 0.5, -1.0]),
    logit_bias=st.sampled_from([(), ((3, -100.0),), ((0, 5.0), (7, -2.5))]),
    least=st.sampled_from([0, 4]),
    ends=st.sampled_from([(2,), (1, 4, 6)]),
)


def sample(
    logits: Tensor,
    params: Sequence[SamplingParams],
    uniforms: Sequence[float] | None = None,
    top_n: Sequence[int] | None = None,
    histories: Sequence[Sequence[int]] | None = None,
    allowed: Sequence[AbstractSet[int]] | None = None,
) -> HostSampled:
    """Sample as the engine does: each row behind its history, with the tokens its grammar allows (by default the even).

    The second half of a history is the answer. Rows without a grammar have an entry in `allowed` that must not matter.
    """
    histories = histories or [[0]] * len(params)
    sampler = Sampler(logits.shape[1], CPU)
    held = [sampler.counts.lend(row.penalises, row.penalises_answer) for row in params]
    for rows, history in zip(held, histories, strict=True):
        for row, counted in zip(rows, (history, answer_of(history)), strict=True):
            if row is not None:
                sampler.counts.reset(row, counted)
    plan = SamplingPlan.build(params, top_n or [0] * len(params), held, logits.shape[1], CPU)
    evens = set(range(0, logits.shape[1], 2))
    masks = [
        packed(tokens, logits.shape[1])
        for row, tokens in zip(params, allowed or [evens] * len(params), strict=True)
        if row.grammar
    ]
    return (
        sampler(
            logits,
            plan,
            torch.tensor(uniforms or [0.5] * len(params)),
            torch.tensor([len(history) for history in histories]),
            torch.tensor([len(answer_of(history)) for history in histories]),
            previous=torch.tensor([history[-1] for history in histories]),
            masks=torch.tensor(masks, dtype=torch.int32) if masks else None,
        )
        .start_copy()
        .read()
    )


def answer_of(history: Sequence[int]) -> Sequence[int]:
    return history[len(history) // 2 :]


def packed(tokens: AbstractSet[int], vocab_size: int) -> list[int]:
    """A mask as signed 32-bit words."""
    words = [0] * math.ceil(vocab_size / 32)
    for token in tokens:
        words[token // 32] |= 1 << token % 32
    return [word - 2**32 if word >= 2**31 else word for word in words]


def reference_scores(
    scores: list[float], params: SamplingParams, history: Sequence[int], allowed: AbstractSet[int]
) -> list[float]:
    """All of docs/protocol.md#choosing-tokens for one row, one token after the other."""
    scores = list(scores)
    if params.watermark:
        for token in reference_green_list(history[-1], len(scores), len(scores) // 2):
            scores[token] += 2.0
    for token, bias in params.logit_bias:
        scores[token] += bias
    if params.repetition_penalty != 1.0:
        for token in set(history):
            factor = params.repetition_penalty
            scores[token] = scores[token] * factor if scores[token] < 0 else scores[token] / factor
    for token in set(history):
        scores[token] -= params.frequency_penalty * history.count(token) / len(history)
    answer = answer_of(history)
    for token in set(answer):
        scores[token] -= params.presence_penalty + params.count_penalty * answer.count(token)
    if params.grammar:
        scores = [score if token in allowed else -math.inf for token, score in enumerate(scores)]
    going_on = [-math.inf if token in params.ends else score for token, score in enumerate(scores)]
    if len(answer) < params.least and max(going_on) > -math.inf:
        scores = going_on
    scores = [score / params.temperature for score in scores]
    if params.top_k:
        worst = sorted(scores)[-min(params.top_k, len(scores))]
        assume(all(score == worst or abs(score - worst) > 1e-4 for score in scores))
        scores = [score if score >= worst else -math.inf for score in scores]
    if params.top_p < 1.0:
        scores = keep_share(scores, scores, params.top_p)
    if params.min_p:
        probs = softmax(scores)
        assume(all(abs(prob - params.min_p * max(probs)) > 1e-6 for prob in probs))
        scores = [
            score if p >= params.min_p * max(probs) else -math.inf for score, p in zip(scores, probs, strict=True)
        ]
    if params.typical_p < 1.0:
        probs = softmax(scores)
        entropy = -sum(prob * math.log(prob) for prob in probs if prob)
        scores = keep_share(scores, [-abs(-math.log(p) - entropy) if p else -math.inf for p in probs], params.typical_p)
    return scores


def reference_green_list(previous: int, vocab_size: int, size: int) -> list[int]:
    """The first tokens of the vocabulary in the order of their hashes, on Python's integers."""

    def mixed(word: int) -> int:
        word = (word ^ (word >> 16)) * 0x85EBCA6B % 2**32
        word = (word ^ (word >> 13)) * 0xC2B2AE35 % 2**32
        return word ^ (word >> 16)

    seed = mixed(15485863 * previous % 2**32)
    return sorted(range(vocab_size), key=lambda token: mixed(token ^ seed))[:size]


def keep_share(scores: list[float], goodness: list[float], share: float) -> list[float]:
    probs, mass = softmax(scores), 0.0
    for entry in sorted(range(len(probs)), key=lambda entry: -goodness[entry]):
        mass += probs[entry]
        assume(abs(mass - share) > 1e-4)  # left to rounding otherwise
        if mass >= share:
            assume(all(g == goodness[entry] or abs(g - goodness[entry]) > 1e-4 for g in goodness))
            return [s if g >= goodness[entry] else -math.inf for s, g in zip(scores, goodness, strict=True)]
    return scores


def softmax(scores: list[float]) -> list[float]:
    weights = [math.exp(score - max(scores)) for score in scores]
    return [weight / sum(weights) for weight in weights]


def reference_choice(scores: list[float], params: SamplingParams, number: float) -> int:
    if not params.samples:
        ranked = sorted(scores)
        assume(ranked[-1] - ranked[-2] > 1e-4)
        return scores.index(ranked[-1])
    mass = 0.0
    for token, prob in enumerate(softmax(scores)):
        mass += prob
        assume(abs(mass - number) > 1e-4)
        if mass > number:
            return token
    raise AssertionError("the probabilities do not add up to 1")


@settings(max_examples=300, derandomize=True)
@given(
    st.lists(st.integers(-400, 400).map(lambda number: number / 64), min_size=12, max_size=30),
    parameters,
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 11), min_size=1, max_size=20),
    st.sets(st.integers(0, 29), min_size=1),
)
def test_a_row_follows_the_reference(
    scores: list[float], params: SamplingParams, seed: int, history: list[int], allowed: set[int]
) -> None:
    number = uniform(seed, 0)
    allowed = {token for token in allowed if token < len(scores)} or {3}
    expected = reference_scores(scores, params, history, allowed)
    token = reference_choice(expected, params, number)
    sampled = sample(torch.tensor([scores]), [params], [number], histories=[history], allowed=[allowed])
    assert sampled.ids == [token]
    assert sampled.logprobs == pytest.approx([math.log(softmax(expected)[token])], abs=1e-3)


@settings(max_examples=40)
@given(st.lists(parameters, min_size=8, max_size=8), st.sampled_from([37, 3_000]), st.integers(0, 2**32))
def test_a_row_does_not_depend_on_the_others(params: list[SamplingParams], vocab: int, seed: int) -> None:
    logits = torch.randn(8, vocab, generator=torch.Generator().manual_seed(seed)) * 2
    numbers = [uniform(seed, index) for index in range(8)]
    histories = [[row, row, 5] for row in range(8)]
    top_n = [0, 3, 1, 0, 2, 0, 5, 0]
    together = sample(logits, params, numbers, top_n, histories)
    for row in range(8):
        part = slice(row, row + 1)
        alone = sample(logits[part], params[part], numbers[part], top_n[part], histories[part])
        assert (alone.ids[0], alone.logprobs[0]) == (together.ids[row], together.logprobs[row])
        assert alone.top[0] == together.top[row]


def test_the_same_uniforms_draw_the_same_tokens_in_every_batch_size() -> None:
    """Seen over many draws, so that a sum which is a little different in a larger batch would show."""
    logits = torch.randn(64, 2_000, generator=torch.Generator().manual_seed(3))
    params = [replace(DRAWN, temperature=1.5, top_p=0.95)] * 64
    numbers = [uniform(3, index) for index in range(64)]
    together = sample(logits, params, numbers).ids
    by_sevens = [
        token
        for start in range(0, 64, 7)
        for token in sample(logits[start : start + 7], params[start : start + 7], numbers[start : start + 7]).ids
    ]
    assert by_sevens == together


@pytest.mark.parametrize(
    ("params", "kept"),
    [(DRAWN, {0, 1, 2, 3, 4, 5, 6, 7}), (SamplingParams(temperature=0.7, top_k=6, top_p=0.95), {0, 1, 3, 6, 7})],
    ids=["plain", "warped"],
)
def test_draws_follow_the_distribution(params: SamplingParams, kept: set[int]) -> None:
    scores = [0.3, 2.0, -1.0, 1.5, 0.0, -3.0, 1.0, 0.9]
    draws = 6_000
    numbers = [uniform(11, index) for index in range(draws)]
    found = Counter(sample(torch.tensor([scores] * draws), [params] * draws, numbers).ids)
    warped = [score / params.temperature if token in kept else -math.inf for token, score in enumerate(scores)]
    expected = [draws * prob for prob in softmax(warped)]
    assert set(found) == kept
    assert sum((found[token] - expected[token]) ** 2 / expected[token] for token in kept) < 30.0


@pytest.mark.parametrize("number", [0.0, 0.5, LAST_UNIFORM])
def test_masked_tokens_are_never_drawn(number: float) -> None:
    logits = torch.full((4, 5_000), -math.inf)
    for row, token in enumerate([0, 17, 4_998, 4_999]):
        logits[row, token] = 1.0
    sampled = sample(logits, [DRAWN] * 4, [number] * 4)
    assert sampled == HostSampled([0, 17, 4_998, 4_999], [0.0] * 4, [[]] * 4)


def test_the_last_uniform_draws_the_last_likely_token() -> None:
    logits = torch.zeros(1, 3_001)
    logits[0, 3_000] = -math.inf
    assert sample(logits, [DRAWN], [LAST_UNIFORM]).ids == [2_999]
    assert sample(logits, [DRAWN], [0.0]).ids == [0]


def test_greedy_takes_the_first_best_token_with_its_raw_probability() -> None:
    logits = torch.tensor([[0.0, 3.0, 3.0, 1.0], [2.0, 1.0, 0.0, -1.0]])
    sampled = sample(logits, [SamplingParams(), SamplingParams(temperature=1.0)])
    assert sampled.ids == [1, 0]
    assert sampled.logprobs == pytest.approx([float(logits[0].log_softmax(0)[1]), float(logits[1].log_softmax(0)[0])])


def test_a_single_kept_token_has_logprob_zero() -> None:
    logits = torch.randn(1, 300, generator=torch.Generator().manual_seed(0))
    sampled = sample(logits, [SamplingParams(top_k=1)], top_n=[5])
    assert sampled.logprobs == [0.0]
    assert sampled.top == [[(int(logits.argmax()), 0.0)]]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_any_float_dtype_is_taken_and_left_unchanged(dtype: torch.dtype) -> None:
    logits = torch.randn(2, 100, generator=torch.Generator().manual_seed(5)).to(dtype)
    before = logits.clone()
    params = [SamplingParams(temperature=0.5, top_k=5, repetition_penalty=1.5), SamplingParams()]
    sampled = sample(logits, params, histories=[[1, 2], [0]])
    assert torch.equal(logits, before)
    assert sampled.ids[1] == int(before[1].float().argmax())
    assert sample(logits.float(), params, histories=[[1, 2], [0]]) == sampled


def test_chosen_tokens_are_counted_before_the_host_knows_them() -> None:
    """Greedy on constant logits: each token is penalised once chosen, so the next best follows."""
    sampler = Sampler(6, CPU)
    params = [
        SamplingParams(repetition_penalty=100.0),
        SamplingParams(),
        SamplingParams(presence_penalty=1.5),
        SamplingParams(count_penalty=0.75),
        SamplingParams(repetition_penalty=100.0, presence_penalty=100.0),
    ]
    held = [sampler.counts.lend(row.penalises, row.penalises_answer) for row in params]
    for row, history in ((row, history) for rows in held for row, history in zip(rows, ([5], []), strict=True)):
        if row is not None:
            sampler.counts.reset(row, history)
    plan = SamplingPlan.build(params, [0] * 5, held, 6, CPU)
    logits = torch.tensor([[5.0, 4.0, 3.0, 2.0, 1.0, 9.0]] * 5)
    logits[2:4] = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 4.5])
    chosen = [
        sampler(logits, plan, torch.zeros(5), torch.full((5,), step), torch.full((5,), step - 1)).start_copy().read()
        for step in range(1, 5)
    ]
    assert list(zip(*(one.ids for one in chosen), strict=True)) == [
        (0, 1, 2, 3),
        (5, 5, 5, 5),
        (0, 5, 1, 0),  # the prompt's token 5 costs nothing; then 3.5, 2.5, 3.0, 2.0, 1.0, 3.0
        (0, 5, 0, 1),  # then 4.25, 4.0, …, 3.75, then 3.5
        (0, 1, 2, 3),
    ]


def test_a_penalised_row_without_counts_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a row of token counts"):
        SamplingPlan.build([SamplingParams(repetition_penalty=1.2)], [0], [CountsRows()], 10, CPU)


def test_watermarks_and_grammars_need_what_they_work_with() -> None:
    for params, missing in (
        (SamplingParams(watermark=True), "the token before"),
        (SamplingParams(grammar="a"), "mask"),
    ):
        plan = SamplingPlan.build([params], [0], [CountsRows()], 40, CPU)
        ones = torch.ones(1, dtype=torch.int64)
        with pytest.raises(ValueError, match=missing):
            Sampler(40, CPU)(torch.zeros(1, 40), plan, torch.zeros(1), ones, ones)


def test_each_grammar_masks_its_own_row() -> None:
    """Masks come for the rows with a grammar only, in the order of these rows."""
    params = [SamplingParams(grammar="a"), SamplingParams(), SamplingParams(grammar="b", top_k=2), SamplingParams()]
    allowed: list[set[int]] = [{7}, set(), {33, 2}, set()]
    sampled = sample(torch.arange(40.0).repeat(4, 1), params, [0.0] * 4, top_n=[4] * 4, allowed=allowed)
    assert sampled.ids == [7, 39, 33, 39]
    assert [[token for token, _ in row] for row in sampled.top] == [[7], [39, 38, 37, 36], [33, 2], [39, 38, 37, 36]]


@pytest.mark.parametrize("wanted", [WatermarkParams(), WatermarkParams(gamma=0.25, delta=5.0)])
def test_a_watermark_favours_the_green_list_of_the_last_token(wanted: WatermarkParams) -> None:
    vocab, previous = 200, torch.tensor([4, 9, 4])
    params = [SamplingParams(watermark=True), SamplingParams(watermark=True), SamplingParams()]
    plan = SamplingPlan.build(params, [vocab] * 3, [CountsRows()] * 3, vocab, CPU, wanted)
    ones = torch.ones(3, dtype=torch.int64)
    sampled = (
        Sampler(vocab, CPU)(torch.zeros(3, vocab), plan, torch.zeros(3), ones, ones, previous=previous)
        .start_copy()
        .read()
    )
    greens = int(vocab * wanted.gamma)
    total = math.log(greens * math.exp(wanted.delta) + vocab - greens)
    for row, token in enumerate([4, 9]):
        favoured = {token for token, logprob in sampled.top[row] if logprob > wanted.delta - total - 1e-3}
        assert favoured == set(reference_green_list(token, vocab, greens))
        assert sampled.top[row][-1][1] == pytest.approx(-total, abs=1e-4)
    assert [logprob for _, logprob in sampled.top[2]] == pytest.approx([-math.log(vocab)] * len(sampled.top[2]))


def test_green_lists_have_their_size_and_look_random() -> None:
    lists = green_lists(torch.arange(400), 1_000, 250)
    assert lists.sum(-1).unique().tolist() == [250]
    overlaps = (lists[:-1] & lists[1:]).sum(-1).float()  # of neighbours: 62.5 expected, deviation 6.0
    assert 60 < overlaps.mean() < 65 and overlaps.std() < 8
    often = lists.sum(0)  # how often each token is green: 100 expected, deviation 8.7
    assert often.min() > 60 and often.max() < 140


def test_an_empty_green_list_favours_nothing() -> None:
    assert not green_lists(torch.tensor([3]), 10, 0).any()


def test_a_plan_for_no_rows_is_allowed() -> None:
    plan = SamplingPlan.build([], [], [], 10, CPU)
    none = torch.zeros(0, dtype=torch.int64)
    empty = Sampler(10, CPU)(torch.zeros(0, 10), plan, torch.zeros(0), none, none)
    assert empty.start_copy().read() == HostSampled([], [], [])


def test_a_row_of_nan_harms_no_other() -> None:
    logits = torch.zeros(3, 2_000)
    logits[0], logits[1] = math.nan, -math.inf
    params = [SamplingParams(temperature=0.9, top_k=9, top_p=0.9, typical_p=0.9)] * 3
    sampled = sample(logits, params, top_n=[2, 2, 2])
    assert all(0 <= token < 2_000 for token in sampled.ids)
    assert math.isnan(sampled.logprobs[0]) and math.isnan(sampled.logprobs[1])
    assert sampled.logprobs[2] == sample(logits[2:], params[2:]).logprobs[0]


class TestTopTokens:
    def test_lists_are_sorted_and_start_with_the_greedy_token(self) -> None:
        logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(2))
        sampled = sample(logits, [SamplingParams()], top_n=[3])
        logprobs = [logprob for _, logprob in sampled.top[0]]
        assert len(logprobs) == 3 and logprobs == sorted(logprobs, reverse=True)
        assert sampled.top[0][0] == (sampled.ids[0], sampled.logprobs[0])

    def test_ties_with_the_last_extend_the_list(self) -> None:
        sampled = sample(torch.tensor([[1.0, 5.0, 2.0, 2.0, 0.0, 2.0]]), [SamplingParams()], top_n=[2])
        assert [token for token, _ in sampled.top[0]] == [1, 2, 3, 5]

    def test_ties_are_bounded(self) -> None:
        assert len(sample(torch.zeros(1, 500), [SamplingParams()], top_n=[2]).top[0]) == 2 + MAX_TIES

    def test_impossible_tokens_are_left_out(self) -> None:
        sampled = sample(torch.arange(20.0)[None], [SamplingParams(top_k=2)], top_n=[5])
        assert [token for token, _ in sampled.top[0]] == [19, 18]

    def test_more_than_the_vocabulary_is_all_of_it(self) -> None:
        assert len(sample(torch.arange(6.0)[None], [SamplingParams()], top_n=[100]).top[0]) == 6

    def test_rows_that_want_none_get_none(self) -> None:
        sampled = sample(torch.randn(3, 30), [SamplingParams()] * 3, top_n=[0, 2, 0])
        assert [len(row) for row in sampled.top] == [0, 2, 0]


class TestSanitised:
    def test_a_zero_filled_message_is_neutral(self) -> None:
        zeros = SamplingParams(temperature=0.0, top_p=0.0, typical_p=0.0, repetition_penalty=0.0)
        assert sanitised(zeros) == SamplingParams()

    @pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
    def test_meaningless_temperatures_are_greedy_and_penalties_survive(self, temperature: float) -> None:
        params = SamplingParams(temperature, 5, 0.5, 0.5, do_sample=True, seed=3, repetition_penalty=1.2)
        assert sanitised(params) == SamplingParams(seed=3, repetition_penalty=1.2)
        assert not sanitised(params).samples

    @pytest.mark.parametrize("value", [-0.5, 0.0, 1.0, 1.5, math.nan, math.inf])
    def test_masses_outside_the_open_interval_are_off(self, value: float) -> None:
        params = sanitised(SamplingParams(temperature=0.5, top_p=value, typical_p=value))
        assert (params.top_p, params.typical_p) == (1.0, 1.0)

    @pytest.mark.parametrize("value", [-1.0, 0.0, math.nan, math.inf])
    def test_meaningless_penalties_are_off(self, value: float) -> None:
        assert sanitised(SamplingParams(repetition_penalty=value)).repetition_penalty == 1.0
        wild = SamplingParams(frequency_penalty=value, presence_penalty=value, logit_bias=((3, value),), min_p=-value)
        params = sanitised(wild)
        assert math.isfinite(params.frequency_penalty + params.presence_penalty + params.logit_bias[0][1])
        assert 0.0 <= params.min_p <= 1.0

    @given(parameters)
    def test_meaningful_values_are_kept(self, params: SamplingParams) -> None:
        assert sanitised(params) == params
