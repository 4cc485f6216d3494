"""Routers of every generation play their whole lives against the shard: nobody's tokens change, nothing is left."""

import threading

import pytest

from conformance.caller import HEALTH_ID
from conformance.router_generations import GENERATIONS, RouterGeneration
from conformance.scripted_router import PREFILL_BUDGET, ScriptedRouter, prompt_ids
from mocks.mock_model import MockModel, greedy_continuation

ROUTERS = [generation for generation in GENERATIONS if generation.warms_up]
SHARING = [generation for generation in GENERATIONS if "cache_len" in generation.fields and generation.warms_up]


def named(generations):
    return pytest.mark.parametrize("generation", generations, ids=lambda generation: generation.name)


@pytest.fixture(params=[True, False], ids=["run-ahead", "no-run-ahead"])
def shard(request, start):
    return start(model=MockModel(fail_on=255), run_ahead=request.param, num_slots=4096, max_len=512)


@pytest.fixture
def play(shard):
    """Start routers on the shard."""
    routers: list[ScriptedRouter] = []

    def play(generation: RouterGeneration) -> ScriptedRouter:
        router = ScriptedRouter(generation, shard.path)
        routers.append(router)
        router.start_up()
        return router

    yield play
    for router in routers:
        router.caller.close()


def expected(router: ScriptedRouter, text: str, new: int) -> list[int]:
    """Greedy tokens; the router's requests ignore the end of sequence."""
    return greedy_continuation(prompt_ids(text), new, ignore_eos=True)


def assert_answered(router: ScriptedRouter, request_id: int, text: str, new: int) -> None:
    entry = router.done[request_id]
    assert (entry.outcome, entry.tokens) == ("finished", expected(router, text, new))


@named(GENERATIONS)
def test_two_requests_overlap(shard, play, generation):
    router = play(generation)
    first = router.submit("the first of two", 12)
    for _ in range(4):
        router.step()
    second = router.submit("another one", 3)
    router.run()
    assert_answered(router, first, "the first of two", 12)
    assert_answered(router, second, "another one", 3)
    shard.assert_idle()


@named(ROUTERS)
def test_long_prompts_and_short_ones(shard, play, generation):
    router = play(generation)
    longest = min(router.limits[0], router.limits[1] - 6, 300) - 1  # without BOS
    texts = ["short", "x" * 80, "y" * longest, "also short", "z" * 90]
    ids = []
    for text in texts:
        ids.append(router.submit(text, 6))
        router.step()
    router.run()
    for request_id, text in zip(ids, texts, strict=True):
        assert_answered(router, request_id, text, 6)
    shard.assert_idle()


@named([generation for generation in ROUTERS if "chunk_len" in generation.fields])
def test_a_prompt_beyond_what_the_budget_has_left_is_chunked(shard, play, generation):
    router = play(generation)
    length = min(router.limits[0] - 1, 100)
    texts = [chr(97 + i) * length for i in range(5)]
    ids = [router.submit(text, 4) for text in texts]
    assert sum(len(prompt_ids(text)) for text in texts) > PREFILL_BUDGET
    router.run()
    for request_id, text in zip(ids, texts, strict=True):
        assert_answered(router, request_id, text, 4)
    shard.assert_idle()


@named(GENERATIONS)
def test_a_client_disconnects(shard, play, generation):
    router = play(generation)
    stays, leaves = router.submit("stays", 9), router.submit("leaves", 40)
    router.step()
    router.disconnect(leaves)
    router.run()
    assert_answered(router, stays, "stays", 9)
    assert router.done[leaves].outcome == "gone"
    shard.assert_idle()


@named(GENERATIONS)
def test_the_only_client_disconnects(shard, play, generation):
    router = play(generation)
    leaves = router.submit("leaves", 40)
    router.step()
    router.disconnect(leaves)
    router.run()
    assert router.done[leaves].outcome == "gone"
    shard.assert_idle()


@named(ROUTERS)
def test_a_failed_step_is_survived(shard, play, generation):
    router = play(generation)
    running = router.submit("running", 9)
    router.step()
    broken = router.submit("broken <fail>", 5)
    router.run()
    assert router.done[broken].outcome == "failed"
    if router.chunks:
        assert router.done[running].outcome == "failed"
    else:
        assert_answered(router, running, "running", 9)
    shard.assert_idle()
    router.healthy = False
    router.check_health()
    after = router.submit("running", 5)
    router.run()
    assert_answered(router, after, "running", 5)


@named(ROUTERS)
def test_a_router_restarts_in_the_middle(shard, play, generation):
    before = play(generation)
    before.submit("never finished", 90)
    before.step()
    after = play(generation)
    again = after.submit("after the restart", 5)
    after.run()
    assert_answered(after, again, "after the restart", 5)
    shard.assert_idle()


def test_a_newer_router_takes_over(shard, play):
    for generation in ROUTERS:
        router = play(generation)
        done = router.submit("hello there", 4)
        router.run()
        assert_answered(router, done, "hello there", 4)
    shard.assert_idle()


@named(ROUTERS)
def test_health_checks_come_at_every_moment(shard, play, generation):
    router = play(generation)
    router.check_health()
    ids = [router.submit(f"request number {i}", 8) for i in range(3)]
    more = True
    while more:
        for router.healthy in (False, True):
            router.check_health()
        more = router.step()
    for i, request_id in enumerate(ids):
        assert_answered(router, request_id, f"request number {i}", 8)
    shard.assert_idle()


@named(ROUTERS)
def test_health_checks_run_beside_the_batching_task(shard, play, generation):
    router, prober = play(generation), ScriptedRouter(generation, shard.path)
    done = threading.Event()
    answers = []

    def probe() -> None:
        while not done.is_set():
            answer = prober.caller.liveness(**generation.liveness)
            answers.append([item.request_id for item in answer.generations])

    thread = threading.Thread(target=probe)
    thread.start()
    request_id = router.submit("undisturbed", 60)
    router.run()
    done.set()
    thread.join()
    prober.caller.close()
    assert_answered(router, request_id, "undisturbed", 60)
    assert answers and all(ids == [HEALTH_ID] for ids in answers)


@named(SHARING)
def test_prompts_that_share_their_beginning(shard, play, generation):
    router = play(generation)
    begin = "a long beginning that all of them have in common: "
    ids = {}
    for text in (begin + "one", begin + "two", begin + "one", begin):
        ids[router.submit(text, 4)] = text
        router.run()
    for request_id, text in ids.items():
        assert_answered(router, request_id, text, 4)
    assert router.done[3].allocation.cached == len(prompt_ids(begin))
    shard.assert_idle()


@named(SHARING)
def test_h1_a_prompt_that_was_put_back_is_not_trusted(shard, play, generation):
    router = play(generation)
    router.put_back("allocated, but never computed")
    request_id = router.submit("allocated, but never computed", 4)
    router.run()
    assert router.done[request_id].allocation.cached > 0
    assert_answered(router, request_id, "allocated, but never computed", 4)


@named(SHARING)
def test_h2_a_prompt_of_a_failed_prefill_is_not_trusted(shard, play, generation):
    router = play(generation)
    ids = [router.submit("in bad company", 4), router.submit("<fail>", 4)]
    router.run()
    assert [router.done[i].outcome for i in ids] == ["failed", "failed"]
    request_id = router.submit("in bad company", 4)
    router.run()
    assert router.done[request_id].allocation.cached > 0
    assert_answered(router, request_id, "in bad company", 4)


def test_the_benchmark_tool_repeats_its_ids(shard, play):
    (generation,) = (generation for generation in GENERATIONS if not generation.warms_up)
    for _ in range(3):
        router = play(generation)
        ids = [router.submit("x" * 10, 8) for _ in range(4)]
        assert ids == [0, 1, 2, 3]
        router.run()
        for request_id in ids:
            assert_answered(router, request_id, "x" * 10, 8)
        shard.assert_idle()
