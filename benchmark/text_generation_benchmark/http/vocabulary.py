"""Texts of a given number of tokens, made of units that are a token each. Knows no workloads, and asks nobody.

Without a tokenizer a unit is a word, and most are one token in most vocabularies; what a server counts is reported.
"""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import NamedTuple

from tokenizers import Tokenizer

from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.prompt import read_tokenizer

_WORDS = (
    "time year people way day man thing woman life child world school state family student group country problem hand "
    "part place case week company system program question work government number night point home water room mother "
    "area money story fact month lot right study book eye job word business issue side kind head house service friend "
    "father power hour game line end member law car city community name president team minute idea body information "
    "back parent face others level office door health person art war history party result change morning reason "
    "research girl guy moment air teacher force education"
)
_FEWEST_UNITS = 16
_TRIAL_TOKENS = 512


class Vocabulary(NamedTuple):
    """Units, and what stands between two of them."""

    units: tuple[str, ...]
    joint: str

    def text(self, random: Random, tokens: int) -> str:
        """Units drawn at random."""
        return self.joint.join(random.choices(self.units, k=tokens))


def of_words() -> Vocabulary:
    """Common English words."""
    return Vocabulary(tuple(_WORDS.split()), " ")


def of_tokenizer(place: Path) -> Vocabulary:
    """Words that are a token each; letters, for a tokenizer that knows no words.

    place: a tokenizer.json, or the directory it is in. Raises BenchmarkError.
    """
    path = place / "tokenizer.json" if place.is_dir() else place
    tokenizer = read_tokenizer(path, "--tokenizer")
    for candidates, joint in ((_WORDS.split(), " "), (sorted(set(_WORDS) - {" "}), "")):
        vocabulary = Vocabulary(tuple(_single(tokenizer, candidates, joint)), joint)
        if len(vocabulary.units) >= _FEWEST_UNITS:
            trial = vocabulary.text(Random(0), _TRIAL_TOKENS)
            if _count(tokenizer, trial) == _TRIAL_TOKENS:
                return vocabulary
    raise BenchmarkError(f"{path} makes no text of an exact number of tokens; leave --tokenizer out to send words")


def _single(tokenizer: Tokenizer, candidates: Iterable[str], joint: str) -> list[str]:
    """Those that are one token, at the beginning of a text and after another."""
    return [
        unit
        for unit in candidates
        if _count(tokenizer, unit) == 1 and _count(tokenizer, f"{unit}{joint}{unit}{joint}{unit}") == 3
    ]


def _count(tokenizer: Tokenizer, text: str) -> int:
    return len(tokenizer.encode(text, add_special_tokens=False).ids)
