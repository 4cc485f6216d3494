"""Blocks and the prefix tree: nothing lost, nothing owned twice, nothing shared before it was computed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from text_generation_router.blocks import Allocation, BlockAllocator

NUM_BLOCKS = 24


class AllocatorMachine(RuleBasedStateMachine):
    """Random requests against a model of the cache: which prompt token each slot holds, once computed."""

    running = Bundle("running")
    block_size = 1

    def __init__(self) -> None:
        super().__init__()
        self.allocator = BlockAllocator(NUM_BLOCKS, self.block_size, prefix_caching=True)
        self.live: list[Allocation] = []
        self.content: dict[int, tuple[str | None, tuple[int, ...]]] = {}

    @rule(
        target=running,
        prompt=st.lists(st.integers(0, 1), min_size=1, max_size=12).map(tuple),
        new=st.integers(1, 8),
        adapter=st.sampled_from([None, "a"]),
        reuse=st.booleans(),
    )
    def start(self, prompt, new, adapter, reuse):
        allocation = self.allocator.allocate(len(prompt) + new - 1, prompt, adapter, reuse)
        if allocation is None:
            wanted = -(-(len(prompt) + new - 1) // self.block_size)
            assert wanted > self.allocator.usable_blocks - self.allocator.used_blocks
            return None
        assert len(allocation.slots) == len(prompt) + new - 1
        assert allocation.cache_len < len(prompt)
        assert reuse or allocation.cache_len == 0
        for position in range(allocation.cache_len):
            assert self.content[allocation.slots[position]] == (adapter, prompt[: position + 1])
        self.live.append(allocation)
        return allocation

    @rule(allocation=running)
    def compute(self, allocation):
        if allocation is None or allocation not in self.live:
            return
        for position, _ in enumerate(allocation.prompt):
            value = allocation.adapter, allocation.prompt[: position + 1]
            if position < allocation.cache_len:
                assert self.content[allocation.slots[position]] == value
            self.content[allocation.slots[position]] = value
        self.allocator.prompt_computed(allocation)

    @rule(allocation=consumes(running))
    def end(self, allocation):
        if allocation is not None and allocation in self.live:
            self.live = [other for other in self.live if other is not allocation]
            self.allocator.release(allocation)

    @invariant()
    def nobody_shares_a_block_that_is_not_cached(self):
        own = [block for allocation in self.live for block in allocation.own]
        assert len(set(own)) == len(own) and 0 not in own
        shared = {block for allocation in self.live for block in set(allocation.blocks) - set(allocation.own)}
        assert not shared & set(own)
        assert len(own) + len(shared) <= self.allocator.used_blocks <= self.allocator.usable_blocks

    def teardown(self):
        for allocation in self.live:
            self.allocator.release(allocation)
        assert self.allocator.used_blocks == 0
        everything = self.allocator.allocate((NUM_BLOCKS - 1) * self.block_size, (9,), None)
        assert everything is not None
        assert sorted(everything.blocks) == list(range(1, NUM_BLOCKS))


class BlocksOfThree(AllocatorMachine):
    block_size = 3


TestBlocksOfOne = AllocatorMachine.TestCase
TestBlocksOfThree = BlocksOfThree.TestCase
TestBlocksOfOne.settings = TestBlocksOfThree.settings = settings(max_examples=60, stateful_step_count=40)


def computed(allocator: BlockAllocator, prompt: tuple[int, ...], new_tokens: int = 1) -> Allocation:
    allocation = allocator.allocate(len(prompt) + new_tokens - 1, prompt, None)
    assert allocation is not None
    allocator.prompt_computed(allocation)
    return allocation


def test_a_prompt_is_shared_only_after_it_was_computed():
    allocator = BlockAllocator(32, 1, prefix_caching=True)
    first = allocator.allocate(6, (1, 2, 3, 4), None)
    assert first is not None
    early = allocator.allocate(6, (1, 2, 3, 4), None)
    assert early is not None and early.cache_len == 0
    allocator.prompt_computed(first)
    late = allocator.allocate(6, (1, 2, 3, 9), None)
    assert late is not None and late.cache_len == 3
    assert late.slots[:3] == first.slots[:3]


def test_a_prompt_that_was_never_computed_is_not_cached():
    allocator = BlockAllocator(32, 1, prefix_caching=True)
    failed = allocator.allocate(6, (1, 2, 3, 4), None)
    assert failed is not None
    allocator.release(failed)
    again = allocator.allocate(6, (1, 2, 3, 4), None)
    assert again is not None and again.cache_len == 0


def test_the_last_prompt_token_is_always_computed():
    allocator = BlockAllocator(32, 4, prefix_caching=True)
    allocator.release(computed(allocator, tuple(range(8))))
    again = allocator.allocate(8, tuple(range(8)), None)
    assert again is not None and again.cache_len == 4


def test_the_least_recently_used_prompt_is_evicted_first():
    allocator = BlockAllocator(10, 1, prefix_caching=True)  # 9 blocks
    for prompt in ((1, 1, 1), (2, 2, 2), (3, 3, 3)):
        allocator.release(computed(allocator, prompt))
    allocator.release(computed(allocator, (1, 1, 1, 1)))  # used again: (2, 2, 2) is the oldest now
    assert allocator.cached_blocks == 9

    def cached(prompt: tuple[int, ...]) -> int:
        allocation = allocator.allocate(len(prompt), prompt, None)
        assert allocation is not None
        found = allocation.cache_len
        allocator.release(allocation)
        return found

    assert cached((1, 1, 1, 1)) == 3
    assert cached((3, 3, 3)) == 2
    assert cached((2, 2, 2)) < 2


def test_a_shared_beginning_outlives_what_hung_on_it():
    allocator = BlockAllocator(9, 1, prefix_caching=True)  # 8 blocks
    for last in (5, 6):
        allocator.release(computed(allocator, (1, 2, last)))
    assert allocator.cached_blocks == 4
    filler = allocator.allocate(6, (9, 9), None)
    assert filler is not None
    allocator.release(filler)
    again = allocator.allocate(3, (1, 2, 7), None)
    assert again is not None and again.cache_len == 2


def test_adapters_do_not_share():
    allocator = BlockAllocator(32, 1, prefix_caching=True)
    computed(allocator, (1, 2, 3))
    other = allocator.allocate(4, (1, 2, 3), "adapter")
    assert other is not None and other.cache_len == 0


@given(st.integers(1, 8), st.integers(2, 20))
def test_without_prefix_caching_blocks_come_and_go(block_size, num_blocks):
    allocator = BlockAllocator(num_blocks, block_size, prefix_caching=False)
    capacity = (num_blocks - 1) * block_size
    first = allocator.allocate(capacity, (1,) * capacity, None)
    assert first is not None
    assert first.slots == list(range(block_size, num_blocks * block_size))
    assert allocator.allocate(1, (1,), None) is None
    allocator.prompt_computed(first)
    allocator.release(first)
    again = allocator.allocate(capacity, (1,) * capacity, None)
    assert again is not None and again.cache_len == 0


@pytest.mark.parametrize(("tokens", "slots"), [(1, [4]), (4, [4, 5, 6, 7]), (6, [4, 5, 6, 7, 8, 9])])
def test_slots_follow_the_blocks(tokens, slots):
    allocation = BlockAllocator(4, 4, prefix_caching=False).allocate(tokens, (1,), None)
    assert allocation is not None and allocation.slots == slots


def test_memory_is_for_blocks_in_use_not_for_those_of_a_huge_cache():
    allocator = BlockAllocator(2**50, 1, prefix_caching=True)
    first = allocator.allocate(4, (1, 2), None)
    assert first is not None and first.blocks == [1, 2, 3, 4]
    allocator.release(first)
    again = allocator.allocate(6, (1, 2), None)
    assert again is not None and sorted(again.blocks) == [1, 2, 3, 4, 5, 6]
    assert allocator.used_blocks == 6
