"""n-gram drafts: what follows the newest earlier occurrence of a sequence's end."""

from hypothesis import given
from hypothesis import strategies as st

from text_generation_server.engine.drafts import LONGEST, SHORTEST, NgramDrafts


def slow(ids, count):
    """By looking everywhere, longest first, newest first."""
    for length in range(LONGEST, SHORTEST - 1, -1):
        for end in range(len(ids) - 1, length - 1, -1):
            if length <= len(ids) and ids[end - length : end] == ids[-length:]:
                return tuple(ids[end : end + count])
    return ()


def test_a_repeated_phrase_goes_on_as_before():
    assert NgramDrafts([5, 6, 7, 8, 9, 1, 5, 6, 7], 3).propose(3) == (8, 9, 1)


def test_nothing_is_guessed_where_nothing_repeats():
    assert NgramDrafts([1, 2, 3], 4).propose(4) == ()
    assert NgramDrafts([], 4).propose(4) == ()


@given(prompt=st.lists(st.integers(0, 3), max_size=30), later=st.lists(st.integers(0, 3), max_size=10))
def test_lookups_find_what_a_search_finds(prompt, later):
    drafts = NgramDrafts(prompt, 4)
    drafts.extend(later)
    assert drafts.propose(4) == slow(prompt + later, 4)


def test_it_is_known_how_many_guesses_come_true_though_none_are_verified():
    drafts = NgramDrafts([1, 2, 3, 4, 5], 3)
    drafts.extend([6, 7, 8])
    assert drafts.usually_accepted == 0
    drafts.extend([1, 2, 3, 4, 5, 6, 7, 8] * 6)
    assert 2.5 < drafts.usually_accepted <= 3
    drafts.extend(range(100, 130))
    assert drafts.usually_accepted < 0.1
