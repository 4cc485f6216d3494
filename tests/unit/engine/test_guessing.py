"""When guesses are verified: where that has been measured to make more tokens a second."""

from dataclasses import dataclass

import pytest

from text_generation_server.engine.drafts import NgramDrafts
from text_generation_server.engine.guessing import REMEMBERED_STEPS, MeasuredGain


@dataclass
class Drafted:
    """What is looked at of a sequence."""

    drafts: NgramDrafts | None


class Scene:
    """A clock that goes on by what a step takes, and sequences whose guesses come true so often."""

    def __init__(self, rows: int, accepted: float) -> None:
        self.now = 0.0
        self.gain = MeasuredGain(lambda: self.now)
        self.sequences = [Drafted(NgramDrafts([], 3)) for _ in range(rows)]
        for sequence in self.sequences:
            sequence.drafts.usually_accepted = accepted

    def run(self, steps: int, plain: float, verifying: float) -> int:
        """How many of so many steps verified guesses."""
        verified = 0
        for _ in range(steps):
            guesses = self.gain.pays(self.sequences)
            self.now += verifying if guesses else plain
            self.gain.note(len(self.sequences), guesses)
            verified += guesses
        return verified


@pytest.mark.parametrize("rows", [1, 8])
@pytest.mark.parametrize(
    ("accepted", "verifying", "pays"), [(1.0, 1.5, True), (1.0, 2.5, False), (0.3, 1.5, False), (2.5, 3.0, True)]
)
def test_guesses_are_verified_where_that_makes_more_tokens_a_second(rows, accepted, verifying, pays):
    verified = Scene(rows, accepted).run(200, plain=1.0, verifying=verifying)
    assert verified >= 190 if pays else verified <= 2


def test_nothing_is_tried_where_guesses_do_not_come_true():
    assert Scene(4, accepted=0.1).run(2000, plain=1.0, verifying=1.0) == 0


def test_what_did_not_pay_is_tried_again_some_time():
    scene = Scene(2, accepted=1.0)
    assert scene.run(50, plain=1.0, verifying=3.0) <= 2
    assert scene.run(2 * REMEMBERED_STEPS, plain=3.0, verifying=3.5) > REMEMBERED_STEPS / 2


def test_sequences_that_cannot_be_guessed_count_as_well():
    scene = Scene(1, accepted=3.0)
    scene.sequences += [Drafted(None)] * 7
    assert scene.run(100, plain=1.0, verifying=1.5) <= 2


def test_waiting_for_the_next_call_is_no_step():
    scene = Scene(1, accepted=1.0)
    scene.run(5, plain=1.0, verifying=1.5)
    scene.gain.pause()
    scene.now += 1e6
    assert scene.run(20, plain=1.0, verifying=1.5) >= 15
