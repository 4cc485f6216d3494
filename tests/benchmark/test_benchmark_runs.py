"""Runs against fake shards, which check all messages as a router's, and errors of shards that do not play along."""

from dataclasses import replace

import pytest

from text_generation_benchmark.client import ShardClient, ShardInfo, WarmupLimits
from text_generation_benchmark.errors import BenchmarkError
from text_generation_benchmark.messages import Batches
from text_generation_benchmark.prompt import prompt_of_words
from text_generation_benchmark.scenario import run_once
from text_generation_benchmark.settings import Sampling, Workload
from text_generation_benchmark.sweep import sweep

WORKLOAD = Workload(batch_sizes=(3,), sequence_length=6, decode_length=4, runs=2, warmups=1)
LIMITS = WarmupLimits(max_prefill_tokens=24, max_input_tokens=6, max_total_tokens=10)
INFO = ShardInfo(
    shards=1, dtype="torch.float16", device_type="cuda", attention_impl="paged", block_size=16, window_size=None,
    speculate=0, requires_padding=False, support_chunking=True, use_prefix_caching=True,
)  # fmt: skip


@pytest.fixture
def connect(start_fake, directory):
    """Start fake shards alike, and connect to them; they must have nothing to complain about at the end."""
    opened = []

    def connect(world_size=1, warm=True, **switches):
        shards = [start_fake(rank=rank, world_size=world_size, **switches) for rank in range(world_size)]
        client = ShardClient.connect(directory / "shard-0")
        opened.append((client, shards))
        if warm:
            client.warm_up(LIMITS)
        return client, shards[0]

    yield connect
    for client, shards in opened:
        with client:
            pass
        assert not any(shard.violations or shard.live_rows() for shard in shards)


def batches_for(client, workload=WORKLOAD):
    return Batches(workload, [prompt_of_words(workload.sequence_length)], client.info())


@pytest.mark.parametrize("block_size", [1, 4, 16])
@pytest.mark.parametrize("keep_finished", [False, True])
def test_a_sweep_sends_what_a_router_would(connect, block_size, keep_finished):
    client, shard = connect(block_size=block_size, keep_finished=keep_finished)
    found = list(sweep(client, WORKLOAD, batches_for(client), lambda line: None))
    steps = ["Prefill", "Decode", "Decode", "Decode"]
    assert shard.steps() == steps * 3
    assert [measurement.batch_size for measurement in found] == [3]
    assert [(len(run.decode_s), run.decode_tokens) for run in found[0].runs] == [(3, 9), (3, 9)]


def test_prompts_have_exactly_the_length(connect):
    client, shard = connect()
    run_once(client, batches_for(client).prefills(3), 4)
    [request] = [detail for name, detail in shard.calls if name == "Prefill"]
    assert [len(wire.slots) for wire in request.batch.requests] == [6 + 4 - 1] * 3
    assert all(len(shard.tokenizer.encode(wire.inputs).ids) > 6 == wire.truncate for wire in request.batch.requests)


def test_large_batches_go_in_several_prefills_and_decode_as_one(connect):
    client, shard = connect(chunking=False)
    workload = Workload(sequence_length=6, decode_length=4, max_batch_prefill_tokens=13)
    run = run_once(client, batches_for(client, workload).prefills(5), 4)
    assert shard.steps() == ["Prefill"] * 3 + ["Decode"] * 3
    assert shard.calls[3][1] == [0, 2, 4]
    assert run.decode_tokens == 15
    assert run.total_s == pytest.approx(run.prefill_s + sum(run.decode_s))


def test_several_shards_answer_for_their_own_requests(connect):
    client, _ = connect(world_size=2)
    assert client.info().shards == 2
    run = run_once(client, batches_for(client).prefills(3), 4)
    assert run.decode_tokens == 9


def test_requests_that_end_early_are_filtered_out_and_named(connect, monkeypatch):
    client, shard = connect(keep_finished=True)
    admit = shard._admit

    def admit_short(wire, rows, last):
        wire.stopping_parameters.max_new_tokens -= wire.id == 1
        row = admit(wire, rows, last)
        shard.violations.remove("wrong number of slots") if wire.id == 1 else None
        return row

    monkeypatch.setattr(shard, "_admit", admit_short)
    with pytest.raises(BenchmarkError, match="request 1 ended after 3 of 4 tokens, with '"):
        run_once(client, batches_for(client).prefills(3), 4)
    assert shard.steps() == ["Prefill", "Decode", "Decode", "FilterBatch", "Decode"]
    assert shard.calls[3][1] == [0, 2]


def test_a_request_that_fails_alone_is_no_measurement(connect):
    client, shard = connect()
    prefills = batches_for(client).prefills(1)
    shard.fail_after[prefills[0].batch.requests[0].inputs] = 0
    with pytest.raises(BenchmarkError, match="request 0 failed: no room"):
        run_once(client, prefills, 1)


def test_end_of_sequence_in_spite_of_the_request_is_an_error(connect):
    client, _ = connect(eos_after=2)
    with pytest.raises(BenchmarkError, match="ended after 2 of 4 tokens"):
        run_once(client, batches_for(client).prefills(3), 4)


def test_a_failed_call_is_told_with_its_reason(connect):
    client, shard = connect()
    shard.failures["Decode"] = "out of memory"
    with pytest.raises(BenchmarkError, match=r"Decode failed: out of memory"):
        run_once(client, batches_for(client).prefills(3), 4)


def test_a_batch_that_disappears_is_an_error(connect):
    client, shard = connect()
    shard.forget = True
    with pytest.raises(BenchmarkError, match="dropped its batch with 3 of 3 requests unfinished"):
        run_once(client, batches_for(client).prefills(3), 4)


def test_prompts_that_one_prefill_does_not_compute_are_an_error(connect, monkeypatch):
    client, shard = connect()
    monkeypatch.setattr(shard, "_admit", lambda wire, rows, last, admit=shard._admit: chunked(admit(wire, rows, last)))
    with pytest.raises(BenchmarkError, match="2 of 3 prompts were computed by their Prefill"):
        run_once(client, batches_for(client).prefills(3), 4)


def chunked(row):
    row.planned -= row.request.id == 2
    return row


def test_a_socket_that_is_not_there_is_named(directory):
    with pytest.raises(BenchmarkError, match=r"no socket at .*/nowhere; start the server first"):
        ShardClient.connect(directory / "nowhere")


def test_a_shard_that_is_gone_is_told(start_fake, directory):
    start_fake()
    (directory / "deaf").touch()
    with pytest.raises(BenchmarkError, match=r"ServiceDiscovery failed: .* \(UNAVAILABLE\)"):
        ShardClient.connect(directory / "deaf")


def test_a_warm_up_tells_how_many_tokens_fit(connect):
    client, shard = connect(warm=False)
    assert client.warm_up(WarmupLimits(16, 6, 10)) == 4096
    limits = shard.warmup.max_prefill_tokens, shard.warmup.max_input_tokens, shard.warmup.max_total_tokens
    assert limits == (16, 6, 10)


def only_request(info, workload):
    [prefill] = Batches(workload, ["a prompt"], info).prefills(1)
    return prefill.batch.requests[0]


def test_guesses_need_room():
    assert len(only_request(replace(INFO, speculate=3), WORKLOAD).slots) == 6 + 4 - 1 + 3


def test_a_window_uses_its_blocks_again():
    wire = only_request(replace(INFO, block_size=2, window_size=4), WORKLOAD)
    assert list(wire.blocks) == [1, 2]
    assert list(wire.slots) == [2, 3, 4, 5, 2, 3, 4, 5, 2]


@pytest.mark.parametrize("fields", [{"requires_padding": True}, {"block_size": 0}])
def test_shards_that_place_requests_themselves_get_no_blocks_and_one_prefill(fields):
    info = replace(INFO, **fields)
    wire = only_request(info, WORKLOAD)
    assert not wire.blocks and not wire.slots
    several = Workload(sequence_length=6, decode_length=4, max_batch_prefill_tokens=12)
    with pytest.raises(BenchmarkError, match="3 prompts do not fit into one Prefill"):
        Batches(several, ["a prompt"], info).prefills(3)


def test_room_is_counted_in_whole_blocks_beside_block_0():
    assert Batches(WORKLOAD, ["a prompt"], INFO).needed_tokens(3) == 16 * (1 + 3)
    assert Batches(WORKLOAD, ["a prompt"], replace(INFO, block_size=1)).needed_tokens(3) == 1 + 3 * 9
    assert Batches(WORKLOAD, ["a prompt"], replace(INFO, requires_padding=True)).needed_tokens(3) == 3 * 9


def test_sampling_options_reach_the_shard():
    sampling = Sampling(temperature=0.5, top_k=3, top_p=0.75, typical_p=0.25, repetition_penalty=1.5,
                        frequency_penalty=0.125, watermark=True, do_sample=True)  # fmt: skip
    wire = only_request(INFO, Workload(sampling=sampling, top_n_tokens=4))
    sent = {field.name: value for field, value in wire.parameters.ListFields()}
    assert sent == {
        "temperature": 0.5, "top_k": 3, "top_p": 0.75, "typical_p": 0.25, "repetition_penalty": 1.5,
        "frequency_penalty": 0.125, "watermark": True, "do_sample": True,
    }  # fmt: skip
    assert wire.top_n_tokens == 4
    assert wire.stopping_parameters.ignore_eos_token
