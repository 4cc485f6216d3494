"""What is asked: prompts and lengths, made from a seed. Knows neither servers nor loads."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random

from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.http.endpoints import Request
from text_generation_benchmark.http.vocabulary import Vocabulary

Lengths = Callable[[Random], tuple[int, int]]
"""Draws the tokens of a prompt and of its answer."""

FORMS = "sharegpt, 512/128, uniform:100-500/50-150, prefix:8x1024+128/64, chat:8x2000+100/100"
_FIXED = re.compile(r"(\d+)/(\d+)")
_UNIFORM = re.compile(r"uniform:(\d+)-(\d+)/(\d+)-(\d+)")
_PREFIX = re.compile(r"prefix:(\d+)x(\d+)\+(\d+)/(\d+)")
_CHAT = re.compile(r"chat:(\d+)x(\d+)\+(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class Workload:
    """Requests of a kind. prefixes: how many beginnings of prefix_tokens their prompts share, by chance.

    turns: how many requests are a chat, each behind all that was asked and answered before it.
    """

    label: str
    lengths: Lengths = field(compare=False)
    prefixes: int = 0
    prefix_tokens: int = 0
    turns: int = 1

    @classmethod
    def parse(cls, text: str) -> "Workload":
        """One of `FORMS`, prompt before answer. Raises BenchmarkError."""
        if text == "sharegpt":
            return cls(text, _sharegpt)
        if numbers := _numbers(_FIXED, text):
            return cls(text, _fixed(*numbers))
        if (numbers := _numbers(_UNIFORM, text)) and numbers[0] <= numbers[1] and numbers[2] <= numbers[3]:
            return cls(text, _uniform(*numbers))
        if numbers := _numbers(_PREFIX, text):
            prefixes, prefix_tokens, prompt, answer = numbers
            return cls(text, _fixed(prompt, answer), prefixes, prefix_tokens)
        if numbers := _numbers(_CHAT, text):
            turns, prefix_tokens, prompt, answer = numbers
            return cls(text, _fixed(prompt, answer), 1, prefix_tokens, turns)
        raise BenchmarkError(f"{text!r} is no workload; expected one like {FORMS}, in tokens of at least 1")


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of every run. Each depends on its number and the seed alone, not on when it is made."""

    vocabulary: Vocabulary
    seed: int

    def make(self, workload: Workload, run: str, number: int, turn: int = 0, before: tuple[str, ...] = ()) -> Request:
        """Other runs, by name, have other prompts, so that no server's cache knows them; prefixes are always alike.

        turn, before: where in a chat it is, and what was asked and answered until then.
        """
        random = Random(f"{self.seed} {workload.label} {run} {number}" + (f" {turn}" if turn else ""))
        prompt_tokens, answer_tokens = workload.lengths(random)
        prompt = self.vocabulary.text(random, prompt_tokens)
        if turn:
            return Request(self.vocabulary.joint + prompt, answer_tokens, before)
        if workload.prefixes:
            which = Random(f"{self.seed} {workload.label} {random.randrange(workload.prefixes)}")
            prompt = self.vocabulary.joint.join((self.vocabulary.text(which, workload.prefix_tokens), prompt))
        return Request(prompt, answer_tokens)


def _fixed(prompt: int, answer: int) -> Lengths:
    return lambda _: (prompt, answer)


def _uniform(prompt_from: int, prompt_to: int, answer_from: int, answer_to: int) -> Lengths:
    return lambda random: (random.randint(prompt_from, prompt_to), random.randint(answer_from, answer_to))


def _sharegpt(random: Random) -> tuple[int, int]:
    """Lengths like those that vLLM's serving benchmark takes from ShareGPT: on average 230 and 203 tokens.

    Source of the averages: vllm-project/vllm pull request 18566, 229711 and 203068 tokens in 1000 requests with the
    tokenizer of Llama 3.1; of the bounds: that benchmark, which leaves others out. The spreads of the
    logarithms, 1.2 and 1.0, are not published there: they are chosen, and then the means so that the averages come out.
    """
    while True:
        prompt, answer = round(random.lognormvariate(5.13, 1.2)), round(random.lognormvariate(4.865, 1.0))
        if 4 <= prompt <= 1024 and answer >= 4 and prompt + answer <= 2048:
            return prompt, answer


def _numbers(form: re.Pattern[str], text: str) -> tuple[int, ...] | None:
    match = form.fullmatch(text)
    numbers = tuple(map(int, match.groups())) if match else ()
    return numbers if numbers and min(numbers) > 0 else None
