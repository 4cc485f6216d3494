"""Prompts and lengths from a seed, and arrivals."""

from random import Random

import pytest

from mocks.fake_shard import save_tokenizer
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.http.endpoints import ChatCompletions, GenerateStream, Wishes
from text_generation_benchmark.http.load import Limit, arrivals
from text_generation_benchmark.http.vocabulary import of_tokenizer, of_words
from text_generation_benchmark.http.workload import Requests, Workload

WORDS = Requests(of_words(), seed=3)


def lengths(label, count, requests=WORDS):
    made = [requests.make(Workload.parse(label), "run", number) for number in range(count)]
    return [(len(request.prompt.split()), request.answer_tokens) for request in made]


def test_requests_depend_on_seed_run_and_number_alone():
    workload, again = Workload.parse("sharegpt"), Requests(of_words(), seed=3)
    made = [WORDS.make(workload, "run", number) for number in range(5)]
    assert [again.make(workload, "run", number) for number in reversed(range(5))] == made[::-1]
    others = [WORDS.make(workload, "another", 0), Requests(of_words(), seed=4).make(workload, "run", 0)]
    assert len({request.prompt for request in made + others}) == 7


def test_lengths_are_what_the_label_says():
    assert set(lengths("12/7", 3)) == {(12, 7)}
    found = lengths("uniform:5-8/2-3", 200)
    assert {prompt for prompt, _ in found} == {5, 6, 7, 8}
    assert {answer for _, answer in found} == {2, 3}
    assert set(lengths("prefix:2x30+4/6", 3)) == {(34, 6)}


def test_prefixes_are_shared_by_all_runs():
    workload = Workload.parse("prefix:2x30+4/6")
    prompts = [WORDS.make(workload, run, number).prompt.split() for run in ("a", "b") for number in range(20)]
    assert len({tuple(prompt[:30]) for prompt in prompts}) == 2
    assert len({tuple(prompt[30:]) for prompt in prompts}) == 40


def test_a_chats_turns_go_on_from_what_was_said():
    workload = Workload.parse("chat:3x20+4/6")
    opening = [WORDS.make(workload, "run", number) for number in range(2)]
    assert workload.turns == 3
    assert {len(request.prompt.split()) for request in opening} == {24}
    assert len({tuple(request.prompt.split()[:20]) for request in opening}) == 1
    later = WORDS.make(workload, "run", 0, 1, (opening[0].prompt, "an answer"))
    assert (later.before, len(later.prompt.split())) == ((opening[0].prompt, "an answer"), 4)
    assert GenerateStream().body(later, Wishes())["inputs"] == f"{opening[0].prompt}an answer{later.prompt}"
    assert ChatCompletions().body(later, Wishes())["messages"] == [
        {"role": "user", "content": opening[0].prompt},
        {"role": "assistant", "content": "an answer"},
        {"role": "user", "content": later.prompt},
    ]


def test_sharegpt_has_its_averages_and_bounds():
    random, draw = Random(0), Workload.parse("sharegpt").lengths
    found = [draw(random) for _ in range(30000)]
    assert sum(prompt for prompt, _ in found) / len(found) == pytest.approx(229.7, rel=0.02)
    assert sum(answer for _, answer in found) / len(found) == pytest.approx(203.1, rel=0.02)
    assert all(4 <= prompt <= 1024 and answer >= 4 and prompt + answer <= 2048 for prompt, answer in found)


@pytest.mark.parametrize("label", ["sharegp", "12", "0/5", "uniform:8-5/1-2", "prefix:2x30/6", "-1/2"])
def test_what_is_no_workload_is_told_what_is(label):
    with pytest.raises(BenchmarkError, match=r"no workload; expected one like sharegpt, 512/128, uniform:"):
        Workload.parse(label)


def test_with_a_tokenizer_lengths_are_exact(model, tmp_path):
    for directory in (model, tmp_path):  # one that knows words or none, and one of bytes
        tokenizer = save_tokenizer(tmp_path)
        if directory == model:
            tokenizer = type(tokenizer).from_file(str(model / "tokenizer.json"))
        requests = Requests(of_tokenizer(directory), seed=0)
        for label, tokens in (("1/2", 1), ("700/2", 700), ("prefix:3x50+9/2", 59)):
            prompt = requests.make(Workload.parse(label), "run", 0).prompt
            assert len(tokenizer.encode(prompt, add_special_tokens=False).ids) == tokens


def test_a_tokenizer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BenchmarkError, match=r"tokenizer\.json is not .*leave --tokenizer out"):
        of_tokenizer(tmp_path)


def test_arrivals_are_random_and_repeatable():
    found = list(arrivals(50, Limit(duration_s=100), "seed"))
    assert found == list(arrivals(50, Limit(duration_s=100), "seed")) == sorted(found)
    assert len(found) == pytest.approx(5000, rel=0.05)
    assert found[:7] == list(arrivals(50, Limit(requests=7), "seed")) != list(arrivals(50, Limit(requests=7), "other"))
