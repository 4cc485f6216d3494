"""Prompts with images between their texts, as token ids, and which positions each image's features fill.

Routers and shards use the same, so that both count alike. Knows no pixels: the sizes of images are enough.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from text_generation_server.errors import InvalidRequest, UnsupportedModel
from text_generation_server.images.family import ImageFamily, Standing

Positions = tuple[int, ...] | range


class Encoder(Protocol):
    """The tokenizer, as prompts need it."""

    def encode(self, text: str, truncate: int, add_special_tokens: bool) -> list[int]:
        """Ids of a text; all of them where `truncate` is 0."""

    def id_of(self, token: str) -> int | None:
        """The id of a token's text, if there is such a token."""


@dataclass(frozen=True, slots=True)
class ImagedPrompt:
    """ids: of the whole prompt. positions: those that each image fills, by its number; images that were cut off are
    left out.
    """

    ids: tuple[int, ...]
    positions: dict[int, Positions]


class ImagePrompts:
    """Makes ids by a family's rules. May be used by any thread, if the tokenizer may."""

    def __init__(self, family: ImageFamily, tokenizer: Encoder) -> None:
        """Raises UnsupportedModel for a tokenizer without the token that stands for images."""
        self.family = family
        self._tokenizer = tokenizer
        token = tokenizer.id_of(family.token)
        if token is None:
            raise UnsupportedModel(f"the tokenizer has no token {family.token}, which stands for images in prompts")
        self._token = token

    def encode(
        self, texts: Sequence[str], sizes: Sequence[tuple[int, int]], truncate: int, add_special_tokens: bool
    ) -> ImagedPrompt:
        """The prompt of texts with an image between each two of them, whose (height, width) are `sizes`.

        truncate: if it is not 0, at most that many ids: special tokens, and the last of the rest.
        Raises BadImage; InvalidRequest for a text with an image's token, and where an image would be cut through.
        """
        standing = [self.family.processor.standing(*size) for size in sizes]
        prompt = self.family.whole(_joined(texts, standing))
        special = add_special_tokens and not self.family.framed
        short = self._tokenizer.encode(prompt, 0, special)
        runs = [(number, run) for number, image in enumerate(standing) for run in image.runs]
        if short.count(self._token) != len(runs):
            raise InvalidRequest(f"a prompt with images cannot have {self.family.token} in its text; leave it out")
        whole = _expanded(short, self._token, iter(runs))
        if not truncate or len(whole.ids) <= truncate:
            return whole
        before, after = self._frame(prompt, short) if special else (0, 0)
        return _truncated(whole, truncate, before, after)

    def _frame(self, prompt: str, ids: Sequence[int]) -> tuple[int, int]:
        """How many special tokens the tokenizer has put before and behind a prompt."""
        bare = self._tokenizer.encode(prompt, 0, False)
        added = len(ids) - len(bare)
        before = next((start for start in range(added + 1) if list(ids[start : start + len(bare)]) == bare), 0)
        return before, added - before


def _joined(texts: Sequence[str], standing: Sequence[Standing]) -> str:
    return texts[0] + "".join(image.text + text for image, text in zip(standing, texts[1:], strict=True))


def _expanded(ids: Sequence[int], token: int, runs: Iterator[tuple[int, int]]) -> ImagedPrompt:
    """Each of an image's tokens as often as there are features, and where those stand."""
    expanded: list[int] = []
    filled: dict[int, list[int]] = {}
    for one in ids:
        if one != token:
            expanded.append(one)
            continue
        number, run = next(runs)
        filled.setdefault(number, []).extend(range(len(expanded), len(expanded) + run))
        expanded += [token] * run
    return ImagedPrompt(tuple(expanded), {number: _compact(places) for number, places in filled.items()})


def _truncated(prompt: ImagedPrompt, truncate: int, before: int, after: int) -> ImagedPrompt:
    """The first and last special tokens, and as many of the others before those as there is room for."""
    ids = prompt.ids
    start = len(ids) - max(truncate - before, after)
    kept: dict[int, Positions] = {}
    for number, places in prompt.positions.items():
        if places and places[0] < start <= places[-1]:
            raise InvalidRequest(f"keeping {truncate} tokens of the prompt would cut through an image; keep more")
        if not places or places[0] >= start:
            kept[number] = _compact([place - start + before for place in places])
    return ImagedPrompt((*ids[:before], *ids[start:])[:truncate], kept)


def _compact(places: Sequence[int]) -> Positions:
    if places and places[-1] - places[0] + 1 == len(places):
        return range(places[0], places[-1] + 1)
    return tuple(places)
