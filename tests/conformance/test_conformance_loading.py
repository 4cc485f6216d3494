"""Adapters that come, change and go while a shard serves: docs/lora.md, over the calls of kvrun.v1.Adapters."""

import random
import threading

import grpc
import pytest

from conformance.caller import ids_of
from mocks.mock_adapters import save_number
from mocks.mock_model import greedy_continuation
from text_generation_protocol.kvrun_v1 import adapters_pb2 as pb
from text_generation_protocol.kvrun_v1.adapters_pb2_grpc import AdaptersStub

SMALL = {"MAX_DEVICE_LORAS": "2", "MAX_CPU_LORAS": "4"}


@pytest.fixture(params=[True, False], ids=["run-ahead", "no-run-ahead"])
def shard(request, start):
    """A shard with places for two adapters, and its calls for them."""
    running = start(variables=SMALL, run_ahead=request.param)
    running.loads = AdaptersStub(running.v3.channel)
    return running


def expected(number, text, new):
    return greedy_continuation([number] * (number is not None) + list(text.encode()), new, ignore_eos=True)


def load(shard, place, number, name="law"):
    return shard.loads.Load(pb.LoadRequest(name=name, place=str(save_number(place, number))), timeout=20).adapter


def held_in_the_end(shard):
    """What is in host memory once the stream, which drops what nobody needs, has done so."""
    shard.engine.runner.drop_adapter(0).result()
    return shard.adapters.held


def test_an_adapter_is_loaded_reloaded_and_unloaded_while_requests_run_with_it(shard, tmp_path):
    caller = shard.v3
    assert (load(shard, tmp_path / "1", 1).generation, load(shard, tmp_path / "1", 1).generation) == (1, 1)
    step = caller.prefill(0, caller.request(1, "hello", 9, adapter_id="law"))
    again = load(shard, tmp_path / "2", 2)
    assert (again.generation, again.rank, list(again.targets), again.requests) == (2, 8, ["q_proj"], 0)
    later = caller.prefill(1, caller.request(2, "hello", 9, adapter_id="law"), cached=0)
    shard.loads.Unload(pb.UnloadRequest(name="law"))
    assert not shard.loads.List(pb.ListRequest()).adapters
    with pytest.raises(grpc.RpcError, match="there is no adapter 'law' here"):
        caller.prefill(2, caller.request(3, "hello", 9, adapter_id="law"))
    answers = {1: list(step.generations), 2: []}
    for generations in (caller.run_out(later),):
        for request, found in generations.items():
            answers[request] += found
    assert [ids_of(answers[number]) for number in (1, 2)] == [expected(number, "hello", 9) for number in (1, 2)]
    assert held_in_the_end(shard) == {}


def test_a_prefix_is_not_taken_over_from_another_adapter_or_what_a_name_meant_before(shard, tmp_path):
    def computed(**adapter):
        before = shard.model.computed_tokens
        asked = adapter or {"adapter_id": "law"}
        shard.v3.answer(shard.v3.request(1, "hello", 2, slots=range(6), cache_len=4, **asked))
        return shard.model.computed_tokens - before

    load(shard, tmp_path / "1", 1)
    whole, shared = computed(), computed()
    assert whole - shared == 4
    load(shard, tmp_path / "2", 2)
    assert computed() == whole
    load(shard, tmp_path / "1", 1)
    assert (computed(), computed(), computed(adapter_id=""), computed()) == (whole, shared, whole, whole)


def test_what_cannot_be_loaded_is_told_and_changes_nothing(shard, tmp_path):
    load(shard, tmp_path / "law", 1)
    for request, code, told in (
        (pb.LoadRequest(name="law", place="/no/such/place"), grpc.StatusCode.NOT_FOUND, "no directory /no/such/place"),
        (pb.LoadRequest(name="lore"), grpc.StatusCode.NOT_FOUND, "no adapter 'lore' in the directory of adapters"),
        (pb.LoadRequest(place=str(tmp_path)), grpc.StatusCode.INVALID_ARGUMENT, "has no name"),
        (pb.LoadRequest(name="law", place=str(save_number(tmp_path / "x", "x"))), grpc.StatusCode.INVALID_ARGUMENT,
         "number is 'x', expected a whole number"),
    ):  # fmt: skip
        with pytest.raises(grpc.RpcError, match=told) as error:
            shard.loads.Load(request, timeout=20)
        assert error.value.code() == code
    for call, request in ((shard.loads.Unload, pb.UnloadRequest), (shard.loads.Pin, pb.PinRequest)):
        with pytest.raises(grpc.RpcError, match="there is no adapter 'lore' here; there are law") as error:
            call(request(name="lore"))
        assert error.value.code() == grpc.StatusCode.NOT_FOUND
    assert ids_of(shard.v3.answer(shard.v3.request(1, "hello", 3, adapter_id="law"))) == expected(1, "hello", 3)


def test_a_first_use_that_fails_fails_its_request_alone(start, tmp_path):
    caller = start(variables={"LORA_DIR": str(tmp_path)}).v3
    save_number(tmp_path / "law", "x")
    step = caller.prefill(0, caller.request(1, "hello", 5, adapter_id="law"), caller.request(2, "hello", 5))
    ends = caller.run_out(step)
    assert "number is 'x', expected a whole number" in ends[1][-1].generated_text.failure
    assert ids_of(ends[2]) == expected(None, "hello", 5)
    with pytest.raises(grpc.RpcError, match=r"request 3: .*number is 'x'"):
        caller.answer(caller.request(3, "hello", 5, adapter_id="law"))
    save_number(tmp_path / "law", 4)
    assert ids_of(caller.answer(caller.request(4, "hello", 5, adapter_id="law"))) == expected(4, "hello", 5)
    with pytest.raises(grpc.RpcError, match="there is no adapter 'lore' here; name one of law, or none"):
        caller.answer(caller.request(5, "hello", 5, adapter_id="lore"))


def test_more_adapters_than_places_take_turns(shard, tmp_path):
    """In the order of the first that wait for each, and all that wait for one together."""
    for number in range(1, 5):
        load(shard, tmp_path / str(number), number, name=str(number))
    caller, first, tokens = shard.v3, [], {}
    asked = [*(str(1 + at % 4) for at in range(8)), "1", "2"]
    step = caller.prefill(0, *(caller.request(at, "hi", 4, adapter_id=name) for at, name in enumerate(asked)))
    with pytest.raises(grpc.RpcError, match="all 4 adapters in memory are in use or pinned") as error:
        load(shard, tmp_path / "5", 5, name="5")
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    while True:
        for generation in step.generations:
            first += [generation.request_id] * (generation.request_id not in tokens)
            tokens.setdefault(generation.request_id, []).extend(generation.tokens.ids)
        if not step.HasField("batch"):
            break
        step = caller.decode(0)
    assert tokens == {at: expected(int(name), "hi", 4) for at, name in enumerate(asked)}
    assert [set(some) for some in (first[:6], first[6:])] == [{0, 1, 4, 5, 8, 9}, {2, 3, 6, 7}]
    shard.assert_idle()


def test_a_stream_of_requests_for_one_adapter_does_not_starve_another(start, tmp_path):
    shard = start(variables={"MAX_DEVICE_LORAS": "1", "MAX_CPU_LORAS": "2"})
    shard.loads, caller = AdaptersStub(shard.v3.channel), shard.v3
    for number in (1, 2):
        load(shard, tmp_path / str(number), number, name=str(number))
    step = caller.prefill(0, caller.request(0, "hi", 4, adapter_id="1"))
    caller.prefill(1, caller.request(1, "hi", 4, adapter_id="2"), cached=0)
    for request in range(2, 12):
        step = caller.prefill(request, caller.request(request, "hi", 4, adapter_id="1"), cached=0)
        if any(generation.request_id == 1 for generation in step.generations):
            break
    assert request <= 4
    caller.clear()
    shard.assert_idle()


def test_a_batch_that_waits_for_another_joins_it_later(start, tmp_path):
    """As routers do that merge batches in Decode; the prompts that waited are computed as steps may be long."""
    variables = {"MAX_DEVICE_LORAS": "1", "MAX_CPU_LORAS": "2", "LORA_DIR": str(tmp_path)}
    caller = start(variables=variables, max_prefill_tokens=8).v2
    for number in (1, 2):
        save_number(tmp_path / str(number), number)
    prompt = "a prompt"
    ids = {at: [*b"\xfe", *prompt.encode()] for at in range(4)}
    caller.prefill(0, caller.request(0, prompt, 4, lora_id="1"))
    waiting = caller.prefill(
        1, *(caller.request(at, prompt, 4, lora_id="2") for at in (1, 2)), caller.request(3, prompt, 4)
    )
    seen = {generation.request_id for generation in waiting.generations}
    assert seen == {3} and list(waiting.batch.request_ids) == [1, 2, 3]
    found = caller.run_out(caller.decode(0, 1))
    for at, number in ((1, 2), (2, 2)):
        assert ids_of(found[at]) == greedy_continuation([number, *ids[at]], 4, ignore_eos=True)


def test_whoever_leaves_while_it_waits_leaves_nothing_behind(start, tmp_path):
    shard = start(variables={"MAX_DEVICE_LORAS": "1", "MAX_CPU_LORAS": "2", "LORA_DIR": str(tmp_path)})
    for number in (1, 2):
        save_number(tmp_path / str(number), number)
    caller = shard.v2
    caller.prefill(0, caller.request(0, "hi", 9, lora_id="1"))
    caller.prefill(1, caller.request(1, "hi", 9, lora_id="2"), caller.request(2, "hi", 9, lora_id="2"))
    caller.filter(1, [2])
    caller.clear(0)
    caller.answer(caller.request(3, "hi", 2, lora_id="2"))  # all that wait are seated here, in other batches too
    caller.clear()
    assert ids_of(caller.answer(caller.request(4, "hi", 2, lora_id="1"))) == greedy_continuation(
        [1, 254, *b"hi"], 2, ignore_eos=True
    )
    shard.assert_idle()
    assert not shard.engine._waiting


def test_pins_stay_and_leave_a_place(shard, tmp_path):
    for number in range(1, 5):
        load(shard, tmp_path / str(number), number, name=str(number))
    shard.loads.Pin(pb.PinRequest(name="1", pinned=True))
    with pytest.raises(grpc.RpcError, match="1 of 2 places are pinned, and one must be left"):
        shard.loads.Pin(pb.PinRequest(name="2", pinned=True))
    for name in ("1", "2", "3", "4", "2"):
        shard.v3.answer(shard.v3.request(1, "hi", 2, adapter_id=name))
    load(shard, tmp_path / "5", 5, name="5")
    status = {one.name: (one.residency, one.pinned) for one in shard.loads.List(pb.ListRequest()).adapters}
    device, host, disk = pb.RESIDENCY_DEVICE, pb.RESIDENCY_HOST, pb.RESIDENCY_DISK
    assert status == {
        "1": (device, True),
        "2": (device, False),
        "3": (disk, False),
        "4": (host, False),
        "5": (host, False),
    }
    save_number(tmp_path / "3", 9)
    with pytest.raises(grpc.RpcError, match="the files of the adapter '3' are others than when it was loaded"):
        shard.v3.answer(shard.v3.request(1, "hi", 2, adapter_id="3"))
    save_number(tmp_path / "3", 3)
    assert ids_of(shard.v3.answer(shard.v3.request(1, "hi", 2, adapter_id="3"))) == expected(3, "hi", 2)


def test_streams_are_what_they_are_alone_while_adapters_come_and_go(shard, tmp_path):
    churn_and_compare(shard, tmp_path, rounds=40)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [True], indirect=True)
def test_a_thousand_times_too(shard, tmp_path):
    churn_and_compare(shard, tmp_path, rounds=1000)


def churn_and_compare(shard, tmp_path, rounds):
    """A thread loads and unloads other names; this one loads other contents under a name that requests have."""
    caller, dice, stop = shard.v3, random.Random(1), threading.Event()

    def churn():
        number = 1000
        while not stop.wait(0.001):
            number += 1
            load(shard, tmp_path / "other", number, name=f"other-{number % 3}")
            if number % 2:
                shard.loads.Unload(pb.UnloadRequest(name=f"other-{number % 3}"))

    other = threading.Thread(target=churn)
    other.start()
    wanted, tokens, running, batch = {}, {}, False, 0
    meant = {"a": None, "b": None}
    try:
        for at in range(rounds):
            name = dice.choice("ab")
            if meant[name] is None or dice.random() < 0.5:
                meant[name] = 2 * at + (name == "b")
                load(shard, tmp_path / name / str(at % 2), meant[name], name=name)
            elif dice.random() < 0.3:
                shard.loads.Unload(pb.UnloadRequest(name=name))
                meant[name] = None
            number, new = meant[name], dice.randint(2, 7)
            wanted[at] = expected(number, "hello", new)
            request = caller.request(at, "hello", new, **({} if number is None else {"adapter_id": name}))
            step = caller.prefill(at, request, cached=batch) if running else caller.prefill(at, request)
            for _ in range(2):
                for generation in step.generations:
                    tokens.setdefault(generation.request_id, []).extend(generation.tokens.ids)
                running, batch = step.HasField("batch"), step.batch.id
                if not running:
                    break
                step = caller.decode(batch)
            for generation in step.generations if running else ():
                tokens.setdefault(generation.request_id, []).extend(generation.tokens.ids)
            running = step.HasField("batch")
        for request, generations in (caller.run_out(caller.decode(batch)) if running else {}).items():
            tokens.setdefault(request, []).extend(ids_of(generations))
    finally:
        stop.set()
        other.join()
    assert tokens == wanted
    for one in shard.loads.List(pb.ListRequest()).adapters:
        assert one.requests == 0
        shard.loads.Unload(pb.UnloadRequest(name=one.name))
    shard.assert_idle()
    registry = shard.engine.adapters
    assert (held_in_the_end(shard), registry._known, registry._reading) == ({}, {}, {})
    assert (sorted(registry._places._free), registry._places._here, registry._places._drained) == ([1, 2], {}, {})
