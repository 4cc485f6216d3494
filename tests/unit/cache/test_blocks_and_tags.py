"""Slot allocation and prefix tags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy import arange, array

from text_generation_server.cache.blocks import LocalBlocks
from text_generation_server.cache.references import SlotReferences
from text_generation_server.cache.tags import PrefixTags, PromptPart, PromptWrites, SlotTags
from text_generation_server.errors import OutOfBlocks


@given(st.integers(1, 16), st.lists(st.integers(1, 40), max_size=30), st.randoms())
def test_no_slot_is_lost_or_owned_twice(block_size, sizes, rng):
    blocks = LocalBlocks(128, block_size)
    whole, held = blocks.free_tokens, []
    for size in sizes:
        if held and rng.random() < 0.4:
            blocks.release(held.pop(rng.randrange(len(held))))
        if size <= blocks.free_tokens:
            held.append(blocks.acquire(size))
            assert len(held[-1]) >= size and len(held[-1]) % block_size == 0
        else:
            with pytest.raises(OutOfBlocks):
                blocks.acquire(size)
    owned = [slot for slots in held for slot in slots]
    assert len(set(owned)) == len(owned) == whole - blocks.free_tokens
    for slots in held:
        blocks.release(slots)
    assert blocks.free_tokens == whole and sorted(blocks.acquire(whole)) == list(range(whole))


def test_a_lone_request_gets_contiguous_slots():
    assert LocalBlocks(64, 4).acquire(10) == tuple(range(12))


def write(tags, slots, prompt_tags, start=0):
    """A step that writes these slots and succeeds."""
    writes = PromptWrites(tags.new_mark(), [PromptPart(slots, prompt_tags, start)])
    tags.mark(slots, writes.mark)
    tags.settle(writes)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.lists(st.integers(0, 5), min_size=1, max_size=12))
def test_a_prefix_matches_exactly_as_far_as_it_is_shared(first, second):
    tags = SlotTags(16)
    slots = arange(3, 3 + len(first))
    write(tags, slots, PrefixTags(None, first))
    limit = min(len(first), len(second))
    shared = next((i for i in range(limit) if first[i] != second[i]), limit)
    assert tags.matching(slots, PrefixTags(None, second), limit) == shared


def test_adapters_do_not_share_a_prefix():
    tags = SlotTags(4)
    write(tags, arange(4), PrefixTags("a", [1, 2, 3, 4]))
    assert tags.matching(arange(4), PrefixTags("b", [1, 2, 3, 4]), 4) == 0
    assert tags.matching(arange(4), PrefixTags("a", [1, 2, 3, 4]), 4) == 4


def test_tags_are_made_as_far_as_they_are_asked_for():
    whole, piecewise = PrefixTags(None, [5, 6, 7, 8]), PrefixTags(None, [5, 6, 7, 8])
    assert len(piecewise.until(2)) == 2
    assert piecewise.until(4).tolist() == whole.until(4).tolist() == whole.until(1).tolist()


def test_forgotten_slots_match_nothing():
    tags = SlotTags(4)
    held = PrefixTags(None, [1, 2, 3, 4])
    write(tags, arange(4), held)
    tags.forget(arange(2, 3))
    assert tags.matching(arange(4), held, 4) == 2


def test_what_a_step_is_to_write_matches_only_once_it_has():
    tags = SlotTags(4)
    held = PrefixTags(None, [1, 2, 3, 4])
    write(tags, arange(4), held)
    again = PromptWrites(tags.new_mark(), [PromptPart(arange(2, 4), held, 2)])
    tags.mark(arange(2, 4), again.mark)
    assert tags.matching(arange(4), held, 4) == 2
    tags.settle(again)
    assert tags.matching(arange(4), held, 4) == 4


def test_a_step_that_is_overtaken_tags_nothing():
    tags = SlotTags(2)
    first, second = PrefixTags(None, [1, 2]), PrefixTags(None, [1, 3])
    late = PromptWrites(tags.new_mark(), [PromptPart(arange(2), first, 0)])
    tags.mark(arange(2), late.mark)
    write(tags, arange(1, 2), second, start=1)
    tags.settle(late)
    assert tags.matching(arange(2), first, 2) == 1
    assert tags.matching(arange(2), second, 2) == 2


def test_a_slot_counts_once_however_many_hold_it():
    references = SlotReferences(10)
    references.add(array([1, 2, 3]))
    references.add(array([2, 3, 4, 5]))
    assert references.distinct == 5
    references.remove(array([1, 2, 3]))
    assert references.distinct == 4
    references.add(array([1, 5]))
    references.remove(array([2, 3, 4, 5]))
    assert references.distinct == 2
