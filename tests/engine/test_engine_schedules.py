"""Random RPC schedules: whatever callers do, every request's tokens are those it gets alone, and nothing leaks."""

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import pytest

from mocks.guessing import SometimesGuess
from mocks.mock_model import UNSPOKEN, LogitsOf, MockModel, greedy_continuation, looping_logits, next_logits
from mocks.pictured_model import PicturedMockModel, picture, seen
from mocks.recurrent_model import RecurrentMockModel, SourceMockModel
from text_generation_server.engine.types import HEALTH_REQUEST_ID, PrefillCommand, Request, StepResult, StoppingParams
from text_generation_server.errors import GenerationError, OutOfBlocks
from text_generation_server.images.types import PlacedImage, PreparedImage
from text_generation_server.sampling.params import SamplingParams

SCHEDULES = 200
"""Of each kind, if `--schedules` does not say how many."""
SLOTS, ROWS = 160, 10


class Caller:
    """A router that makes random but legal moves, and now and then an illegal one; it checks every answer."""

    def __init__(self, engine, seed: int, logits_of: LogitsOf) -> None:
        self.engine = engine
        self.pictures = engine.settings.feature_places(1) > 0
        self.logits_of = logits_of
        self.alphabet = UNSPOKEN if logits_of is next_logits else 4
        self.rng = random.Random(seed)
        self.next_id = 0
        self.expected: dict[int, list[int]] = {}
        self.answered: Counter[int] = Counter()
        self.slots_of: dict[int, tuple[int, ...]] = {}
        self.free_slots = list(range(1, SLOTS // 2))
        self.remembered: list[tuple[bytes, tuple[int, ...], tuple[PlacedImage, ...]]] = []
        self.batches: dict[int, list[int]] = {}
        self.seen_tokens = 0
        self.several = 0

    def play(self, moves: int) -> None:
        # The upper half of the slots belongs to the local allocator, so that both placements live side by side.
        self.engine.pool.blocks._free = [b for b in self.engine.pool.blocks._free if b * 4 >= SLOTS // 2]
        self.local_free = self.engine.pool.blocks.free_tokens
        choices = [self.prefill] * 3 + [self.decode] * 6 + [self.filter, self.clear, self.health, self.fault]
        for _ in range(moves):
            self.rng.choice(choices)()
        if self.rng.random() < 0.5:
            while self.batches:
                self.decode()
        self.engine.clear(None)
        assert self.engine.batch_ids == ()
        assert len(self.engine.pool.rows) == ROWS
        assert self.engine.pool.blocks.free_tokens == self.local_free
        assert not any(held.holders for held in self.engine.pool.features._known.values())

    def prefill(self) -> None:
        requests = tuple(self.make_request() for _ in range(self.rng.randint(1, 3)))
        batch_id = self.new_id()
        cached = self.rng.choice([None, *self.batches]) if self.rng.random() < 0.5 else None
        try:
            result = self.engine.prefill(PrefillCommand(batch_id, requests, cached))
        except OutOfBlocks:
            self.lose([r.id for r in requests] + (self.batches.pop(cached) if cached is not None else []))
            return
        members = (self.batches.pop(cached) if cached is not None else []) + [r.id for r in requests]
        self.take(result, members)

    def decode(self) -> None:
        if self.batches:
            ids = self.rng.sample(sorted(self.batches), self.rng.randint(1, min(3, len(self.batches))))
            members = [i for batch in ids for i in self.batches.pop(batch)]
            self.take(self.engine.decode(ids), members)

    def filter(self) -> None:
        if self.batches:
            batch_id = self.rng.choice(sorted(self.batches))
            members = self.batches[batch_id]
            keep = self.rng.sample(members, self.rng.randint(1, len(members)))
            assert self.engine.filter(batch_id, keep).request_ids == tuple(keep)
            self.lose([i for i in members if i not in keep])
            self.batches[batch_id] = keep

    def clear(self) -> None:
        if self.batches:
            batch_id = self.rng.choice(sorted(self.batches))
            self.engine.clear(batch_id)
            self.lose(self.batches.pop(batch_id))

    def health(self) -> None:
        probe = Request(
            HEALTH_REQUEST_ID, tuple(b"liveness"), SamplingParams(), StoppingParams(1), slots=tuple(range(16))
        )
        result = self.engine.prefill(PrefillCommand(HEALTH_REQUEST_ID, (probe,)))
        expected = self.answer(b"liveness", 1)
        assert result.generations[0].tokens.ids == expected and result.batch is None

    def fault(self) -> None:
        kind = self.rng.randrange(3)
        with pytest.raises(GenerationError):
            if kind == 0:
                self.engine.decode([10**9])
            elif kind == 1:
                self.engine.filter(10**9, [1])
            else:
                bad = (PlacedImage(picture(UNSPOKEN, 1), (1,)),) if self.pictures else ()
                poisoned = Request(self.new_id(), (1, UNSPOKEN, 2), SamplingParams(), StoppingParams(3), images=bad)
                self.engine.prefill(PrefillCommand(self.new_id(), (poisoned,)))
                # Only a full engine gets here without an error from the step itself.
                raise AssertionError("a failing step gave an answer")

    def make_request(self) -> Request:
        request_id = self.new_id()
        prompt = bytes(self.rng.randrange(self.alphabet) for _ in range(self.rng.randint(1, 14)))
        new = self.rng.randint(1, 8)
        ignore_eos = self.rng.random() < 0.5
        slots: tuple[int, ...] | None = None
        cached, held = 0, ()
        prompt, images = self.with_images(prompt)
        if self.rng.random() < 0.6:
            if self.remembered and self.rng.random() < 0.5:
                # True or not: whoever was to compute the prefix may have been dropped before it was done.
                prefix, held, before = self.rng.choice(self.remembered)
                images = [*before] + [shifted(image, len(prefix)) for image in images]
                prompt, cached = prefix + prompt, len(held)
            elif self.rng.random() < 0.3:
                cached = self.rng.randint(1, len(prompt))
            need = len(prompt) + new - 1 - len(held)
            if 0 <= need <= len(self.free_slots):
                taken = tuple(self.free_slots.pop(self.rng.randrange(len(self.free_slots))) for _ in range(need))
                slots = held + taken
                self.slots_of[request_id] = taken
            else:
                cached = 0
        self.expected[request_id] = self.answer(seen(prompt, images), new, ignore_eos)
        chunk = self.rng.randint(1, len(prompt)) if self.rng.random() < 0.4 else None
        # An encoder's slots are nobody else's, whatever begins alike: routers are told so.
        may_share = slots is not None and not held and self.engine.settings.start is None
        if may_share and self.rng.random() < 0.3 and len(self.remembered) < 3:
            self.remembered.append((prompt, slots[: len(prompt)], tuple(images)))
            self.slots_of[request_id] = slots[len(prompt) :]
        stopping = StoppingParams(new, ignore_eos=ignore_eos)
        given = {"slots": slots, "cache_len": cached, "chunk": chunk, "images": tuple(images)}
        return Request(request_id, tuple(prompt), SamplingParams(), stopping, **given)

    def with_images(self, prompt: bytes) -> tuple[bytes, list[PlacedImage]]:
        """The prompt with one of four images somewhere, or with none."""
        if not self.pictures or self.rng.random() < 0.4:
            return prompt, []
        image, place = self.any_picture(), self.rng.randint(0, len(prompt))
        placed = PlacedImage(image, range(place, place + image.tokens))
        return prompt[:place] + b"i" * image.tokens + prompt[place:], [placed]

    def any_picture(self) -> PreparedImage:
        content = self.rng.choice((100, 101, 102, 103))
        return picture(content, 1 + content % 4)

    def answer(self, prompt: Sequence[int], new: int, ignore_eos: bool = False) -> list[int]:
        """What a request must get."""
        start = self.engine.settings.start
        begun = prompt if start is None else (*prompt, start)
        return greedy_continuation(begun, new, ignore_eos, self.logits_of)

    def take(self, result: StepResult, members: list[int]) -> None:
        finished = set()
        for generation in result.generations:
            request_id = generation.request_id
            assert request_id in members
            ids, answered = generation.tokens.ids, self.answered[request_id]
            assert ids and ids == self.expected[request_id][answered : answered + len(ids)]
            self.answered[request_id] += len(ids)
            self.seen_tokens += len(ids)
            self.several += len(ids) > 1
            if generation.finished:
                assert self.answered[request_id] == len(self.expected[request_id])
                finished.add(request_id)
        rest = [i for i in members if i not in finished]
        assert (result.batch.request_ids if result.batch else ()) == tuple(rest)
        self.lose(sorted(finished))
        if result.batch:
            self.batches[result.batch.id] = rest

    def lose(self, request_ids: list[int]) -> None:
        """These requests are over: a router hands their slots out again at once."""
        for request_id in request_ids:
            self.free_slots.extend(self.slots_of.pop(request_id, ()))

    def new_id(self) -> int:
        self.next_id += 1
        return self.next_id


def shifted(placed: PlacedImage, by: int) -> PlacedImage:
    """The image so many positions on."""
    return replace(placed, positions=tuple(position + by for position in placed.positions))


@pytest.fixture
def schedules(request) -> int:
    return request.config.getoption("--schedules") or SCHEDULES


@pytest.mark.parametrize(
    ("run_ahead", "speculate", "graphs", "kind", "sometimes"),
    [
        (True, 0, (1, 2, 4), MockModel, False),
        (True, 0, (), MockModel, False),
        (False, 0, (), MockModel, False),
        (True, 3, (), MockModel, False),
        (True, 3, (1, 2, 4), MockModel, True),
        (True, 0, (1, 2, 4), RecurrentMockModel, False),
        (True, 0, (1, 2, 4), SourceMockModel, False),
        (True, 0, (1, 2, 4), PicturedMockModel, False),
        (False, 0, (), PicturedMockModel, False),
    ],
    ids=[
        "recorded",
        "run-ahead",
        "no-run-ahead",
        "speculation",
        "speculation now and then",
        "recurrent",
        "encoder",
        "images",
        "images one by one",
    ],
)
def test_random_schedules_answer_as_if_alone(make_engine, schedules, run_ahead, speculate, graphs, kind, sometimes):
    """With guesses the tokens are the same too, only several at once, and one only without."""
    logits_of = looping_logits if speculate else next_logits
    tokens = several = 0
    schedules //= 8 if kind is not MockModel else 4 if sometimes else 1
    for seed in range(schedules):
        engine = make_engine(
            run_ahead=run_ahead,
            speculate=speculate,
            graphs=graphs,
            guessing=SometimesGuess(seed) if sometimes else None,
            num_slots=SLOTS,
            max_len=64,
            max_rows=ROWS,
            max_prefill_tokens=1 + seed % 12,
            model=MockModel(fail_on=UNSPOKEN, logits=logits_of) if kind is MockModel else kind(fail_on=UNSPOKEN),
        )
        caller = Caller(engine, seed, logits_of)
        caller.play(moves=24)
        engine.runner.close()
        tokens += caller.seen_tokens
        several += caller.several
    assert several > (schedules / 8 if sometimes else schedules) if speculate else several == 0
    assert tokens > 10 * schedules
