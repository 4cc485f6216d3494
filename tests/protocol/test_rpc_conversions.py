"""What each protocol version's messages mean to the engine, and how its answers look on the wire."""

import math
from dataclasses import replace

import pytest

from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_server.engine.types import (
    BatchView,
    Failure,
    FinishReason,
    GeneratedText,
    Generation,
    PrefillCommand,
    Request,
    StepResult,
    StoppingParams,
    TokenList,
    WarmupCommand,
)
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.rpc.wire_v3 import EXTENSIONS
from text_generation_server.sampling.params import SamplingParams

BOS = 300
IMAGE = pb_v3.InputChunk(image=pb_v3.Image(data=b"\x89PNG", mimetype="image/png"))


def neutral(pb, **changes):
    return pb.NextTokenChooserParameters(
        **{"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0} | changes
    )


def request(pb, **changes):
    stopping = pb.StoppingCriteriaParameters(max_new_tokens=3)
    return pb.Request(**{"inputs": "ab", "parameters": neutral(pb), "stopping_parameters": stopping} | changes)


def prefill(pb, *requests, **fields):
    return pb.PrefillRequest(batch=pb.Batch(id=5, requests=requests), **fields)


def test_what_a_request_has_generated_follows_its_prompt(shard, engine):
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3, generated_ids=[7, 8], resumable=True)))
    (got,) = engine.last.requests
    assert (got.prompt_ids[-2:], got.generated, got.stopping.resumable) == ((7, 8), 2, True)


def test_v3_info_bytes(shard):
    expected = bytes.fromhex("12 0d") + b"torch.float16" + bytes.fromhex("1a 04") + b"cuda"
    expected += bytes.fromhex("30 01 38 01 42 0a") + b"flashinfer" + bytes.fromhex("48 01")
    expected += bytes.fromhex("a0 06 01 c0 3e ac 02")  # our own: requests may be resumed; the size of the vocabulary
    for name in EXTENSIONS:
        expected += bytes.fromhex("da 3e") + bytes([len(name)]) + name.encode()
    expected += bytes.fromhex("e0 3e 01 e8 3e 01")  # room for prompts is told, steps are pushed
    assert shard.raw("generate.v3.TextGenerationService/Info") == expected


def test_v2_info_has_the_first_five_fields_and_ours(shard):
    expected = (
        bytes.fromhex("12 0d") + b"torch.float16" + bytes.fromhex("1a 04") + b"cuda" + bytes.fromhex("c0 3e ac 02")
    )
    assert shard.raw("generate.v2.TextGenerationService/Info") == expected


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_discovery_names_rank_0_by_its_absolute_path(shard, version):
    pb = {"v2": pb_v2, "v3": pb_v3}[version]
    urls = getattr(shard, version).ServiceDiscovery(pb.ServiceDiscoveryRequest()).urls
    assert urls == [f"unix://{shard.path}"]
    assert urls[0].startswith("unix:///") and urls[0].endswith("-0")


def test_v2_request(shard, engine):
    parameters = neutral(
        pb_v2, temperature=0.5, top_k=4, top_p=0.25, typical_p=0.75, do_sample=True, seed=2**64 - 1,
        repetition_penalty=1.5, frequency_penalty=0.5, watermark=True, grammar="{}",
        grammar_type=pb_v2.GRAMMAR_TYPE_JSON,
    )  # fmt: skip
    stopping = pb_v2.StoppingCriteriaParameters(max_new_tokens=3, stop_sequences=["x", "y"], ignore_eos_token=True)
    message = request(
        pb_v2, id=10, parameters=parameters, stopping_parameters=stopping, prefill_logprobs=True, top_n_tokens=2
    )
    shard.v2.Prefill(prefill(pb_v2, message))
    sampling = SamplingParams(
        temperature=0.5, top_k=4, top_p=0.25, typical_p=0.75, do_sample=True, seed=2**64 - 1,
        repetition_penalty=1.5, frequency_penalty=0.5, watermark=True, grammar="{}", grammar_type=GrammarType.JSON,
    )  # fmt: skip
    expected = Request(
        id=10,
        prompt_ids=(BOS, 97, 98),
        sampling=sampling,
        stopping=StoppingParams(3, ("x", "y"), ignore_eos=True),
        prefill_logprobs=True,
        top_n_tokens=2,
    )
    assert engine.last == PrefillCommand(batch_id=5, requests=(expected,))


def test_v3_request(shard, engine):
    message = request(
        pb_v3, id=10, add_special_tokens=False, adapter_id="law", blocks=[3, 4], slots=[48, 49, 50, 51],
        cache_len=1, chunk_len=1, prefill_logprobs=True,
    )  # fmt: skip
    shard.v3.Prefill(prefill(pb_v3, message))
    (got,) = engine.last.requests
    assert got == Request(
        id=10,
        prompt_ids=(97, 98),
        sampling=SamplingParams(),
        stopping=StoppingParams(3),
        prefill_logprobs=True,
        adapter="law",
        slots=(48, 49, 50, 51),
        cache_len=1,
        chunk=1,
    )


def test_our_own_fields_of_v3(shard, engine):
    bias = [pb_v3.TokenBias(id=3, bias=1.0), pb_v3.TokenBias(id=4, bias=-2.5), pb_v3.TokenBias(id=3, bias=2.0)]
    message = request(
        pb_v3,
        inputs="read by nobody",
        prompt_ids=[7, 8],
        truncate=1,
        prefill_top_n_tokens=4,
        parameters=neutral(
            pb_v3, min_p=0.25, presence_penalty=0.5, count_penalty=-0.5, logit_bias=bias, grammar='start: "a"',
            grammar_type=pb_v3.GRAMMAR_TYPE_EBNF,
        ),
        stopping_parameters=pb_v3.StoppingCriteriaParameters(max_new_tokens=3, min_new_tokens=2, stop_token_ids=[5, 6]),
    )  # fmt: skip
    shard.v3.Prefill(prefill(pb_v3, message, request(pb_v3)))
    ours, other = engine.last.requests
    assert (ours.prefill_top_n, other.prefill_top_n) == (4, 0)
    assert ours.prompt_ids == (7, 8) and other.prompt_ids == (97, 98)
    assert ours.sampling == SamplingParams(
        min_p=0.25, presence_penalty=0.5, count_penalty=-0.5, logit_bias=((3, 2.0), (4, -2.5)), grammar='start: "a"',
        grammar_type=GrammarType.EBNF,
    )  # fmt: skip
    assert ours.stopping == StoppingParams(3, min_new_tokens=2, stop_token_ids=(5, 6))
    assert other.sampling == SamplingParams() and other.stopping == StoppingParams(3)


def test_v3_defaults_let_the_engine_decide(shard, engine):
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3)))
    (got,) = engine.last.requests
    assert (got.slots, got.cache_len, got.chunk, got.adapter) == (None, 0, None, None)
    assert engine.last.cached_batch_id is None


def test_a_first_chunk_of_zero_is_not_an_absent_one(shard, engine):
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3, chunk_len=0)))
    assert engine.last.requests[0].chunk == 0


def test_prefill_logprobs_need_permission_in_v3_only(start_shard, engine):
    shard = start_shard(engine, prefill_logprobs=False)
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3, prefill_logprobs=True)))
    assert engine.last.requests[0].prefill_logprobs is False
    shard.v2.Prefill(prefill(pb_v2, request(pb_v2, prefill_logprobs=True)))
    assert engine.last.requests[0].prefill_logprobs is True


def test_zero_filled_parameters_are_neutral(shard, engine):
    shard.v2.Prefill(prefill(pb_v2, request(pb_v2, parameters=None)))
    assert engine.last.requests[0].sampling == SamplingParams()


@pytest.mark.parametrize(("lora_id", "adapter"), [(None, None), ("", None), ("empty", None), ("law", "law")])
def test_v2_adapters(shard, engine, lora_id, adapter):
    shard.v2.Prefill(prefill(pb_v2, request(pb_v2, lora_id=lora_id)))
    assert engine.last.requests[0].adapter == adapter


@pytest.mark.parametrize(("adapter_id", "adapter"), [(None, None), ("", None), ("empty", "empty"), ("law", "law")])
def test_v3_adapters(shard, engine, adapter_id, adapter):
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3, adapter_id=adapter_id)))
    assert engine.last.requests[0].adapter == adapter


@pytest.mark.parametrize(
    ("chunks", "prompt"),
    [
        ([], b"ab"),
        ([pb_v3.InputChunk(text="c")], b"c"),
        ([pb_v3.InputChunk(text="c"), pb_v3.InputChunk(text="d")], b"cd"),
    ],
    ids=["none", "one", "two"],
)
def test_v3_chunks_come_before_inputs(shard, engine, chunks, prompt):
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3, input_chunks=pb_v3.Input(chunks=chunks))))
    assert engine.prompts == [tuple(prompt)]


@pytest.mark.parametrize("chunks", [[IMAGE], [pb_v3.InputChunk(text="c"), IMAGE]], ids=["alone", "with text"])
def test_an_image_is_refused_by_name(shard, engine, chunks):
    requests = request(pb_v3, input_chunks=pb_v3.Input(chunks=chunks)), request(pb_v3, id=2)
    shard.v3.Prefill(prefill(pb_v3, *requests))
    assert [r.id for r in engine.last.requests] == [2]
    assert [r.reason for r in engine.last.refused] == [
        "request 0: the prompt has an image, and this model takes text only: leave it out"
    ]


def test_each_request_is_truncated_by_its_own_limit(shard, engine):
    requests = [request(pb_v2, id=i, inputs="abcdef", truncate=limit) for i, limit in enumerate((3, 5, 0))]
    shard.v2.Prefill(prefill(pb_v2, *requests))
    assert engine.prompts == [(BOS, *b"ef"), (BOS, *b"cdef"), (BOS, *b"abcdef")]


def test_prompts_are_tokenised_outside_the_engine_thread(shard):
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3)))
    assert shard.tokenizer.threads and not any(name.startswith("engine") for name in shard.tokenizer.threads)


def test_v3_prefill_joins_a_cached_batch(shard, engine):
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3, id=1)))
    new = pb_v3.PrefillRequest(
        batch=pb_v3.Batch(id=6, requests=[request(pb_v3, id=2)]), cached_batch=pb_v3.CachedBatch(id=5)
    )
    response = shard.v3.Prefill(new)
    assert (engine.last.batch_id, engine.last.cached_batch_id) == (6, 5)
    assert (response.batch.id, list(response.batch.request_ids), response.batch.size) == (5, [1, 2], 2)
    assert (response.batch.max_tokens, response.batch.current_tokens) == (32, 2)
    assert response.HasField("concat_ns")


def test_decode_passes_ids_in_order_and_reports_merging(shard, engine):
    for batch_id in (7, 8):
        shard.v2.Prefill(pb_v2.PrefillRequest(batch=pb_v2.Batch(id=batch_id, requests=[request(pb_v2, id=batch_id)])))
    response = shard.v2.Decode(pb_v2.DecodeRequest(batches=[pb_v2.CachedBatch(id=8), pb_v2.CachedBatch(id=7)]))
    assert engine.last == ("decode", (8, 7))
    assert (response.batch.id, list(response.batch.request_ids)) == (8, [8, 7])
    assert response.concat_ns == 10


def test_a_lone_batch_reports_no_merging_and_the_last_token_no_batch(shard):
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3, id=1)))
    decode = pb_v3.DecodeRequest(batches=[pb_v3.CachedBatch(id=5)])
    second, third = shard.v3.Decode(decode), shard.v3.Decode(decode)
    assert not second.HasField("concat_ns") and second.HasField("batch")
    assert not second.generations[0].HasField("generated_text")
    assert not third.HasField("batch")
    assert third.generations[0].generated_text == pb_v3.GeneratedText(text="aaa", generated_tokens=3)
    assert third.total_ns >= 0 and (third.forward_ns, third.decode_ns) == (1000, 100)


def full_result() -> StepResult:
    tokens = TokenList([1, 2], [-0.5, -1.5], ["a", "🙂"], [False, True])
    return StepResult(
        generations=(
            Generation(
                request_id=2**64 - 1,
                tokens=tokens,
                prefill_tokens=TokenList([7, 8], [math.nan, -0.25], ["p", "q"], []),
                top_tokens=(tokens, tokens),
                finished=GeneratedText("Hi", 2, FinishReason.EOS_TOKEN, seed=2**64 - 1),
            ),
        ),
        batch=BatchView(9, (3, 4), max_tokens=64, current_tokens=5, prefill_room=7),
        forward_ns=11,
        decode_ns=12,
        concat_ns=13,
    )


@pytest.mark.parametrize(("version", "pb"), [("v2", pb_v2), ("v3", pb_v3)], ids=["v2", "v3"])
def test_every_part_of_a_result_arrives(shard, engine, version, pb):
    engine.result = full_result()
    response = getattr(shard, version).Prefill(prefill(pb, request(pb)))
    (generation,) = response.generations
    tokens = pb.Tokens(ids=[1, 2], logprobs=[-0.5, -1.5], texts=["a", "🙂"], is_special=[False, True])
    assert generation.request_id == 2**64 - 1
    assert generation.tokens == tokens and list(generation.top_tokens) == [tokens, tokens]
    assert list(generation.prefill_tokens.ids) == [7, 8] and list(generation.prefill_tokens.is_special) == []
    assert math.isnan(generation.prefill_tokens.logprobs[0])
    assert generation.generated_text == pb.GeneratedText(
        text="Hi", generated_tokens=2, finish_reason=pb.FINISH_REASON_EOS_TOKEN, seed=2**64 - 1
    )
    assert (response.batch.id, list(response.batch.request_ids), response.batch.size) == (9, [3, 4], 2)
    assert (response.batch.max_tokens, response.forward_ns, response.decode_ns) == (64, 11, 12)
    assert response.total_ns > 0


@pytest.mark.parametrize(("version", "pb"), [("v2", pb_v2), ("v3", pb_v3)], ids=["v2", "v3"])
def test_a_failure_is_marked_beside_what_every_router_reads(shard, engine, version, pb):
    failed = replace(full_result().generations[0], finished=Failure("no room", 3))
    engine.result = replace(full_result(), generations=(failed,))
    (generation,) = getattr(shard, version).Prefill(prefill(pb, request(pb))).generations
    assert generation.generated_text == pb.GeneratedText(
        text="no room", generated_tokens=3, finish_reason=pb.FINISH_REASON_EOS_TOKEN, failure="no room"
    )


def test_the_times_of_a_step_that_ran_ahead_stay_within_the_whole(shard, engine):
    hour = 3600 * 10**9  # far longer than the call that reports it
    engine.result = replace(full_result(), forward_ns=hour)
    response = shard.v3.Prefill(prefill(pb_v3, request(pb_v3)))
    assert response.forward_ns == hour and response.total_ns == hour + 12 + 13


def test_only_v3_says_current_tokens_and_the_merging_time_of_a_prefill(shard, engine):
    engine.result = full_result()
    v2, v3 = shard.v2.Prefill(prefill(pb_v2, request(pb_v2))), shard.v3.Prefill(prefill(pb_v3, request(pb_v3)))
    assert (v3.batch.current_tokens, v3.batch.prefill_room, v3.concat_ns) == (5, 7, 13)
    assert {field.name for field, _ in v2.batch.ListFields()} == {"id", "request_ids", "size", "max_tokens"}


def test_greedy_text_has_no_seed(shard):
    (generation,) = shard.v2.Prefill(
        prefill(pb_v2, request(pb_v2, stopping_parameters=pb_v2.StoppingCriteriaParameters(max_new_tokens=1)))
    ).generations
    assert not generation.generated_text.HasField("seed")


def test_filter_keeps_the_given_order(shard, engine):
    shard.v3.Prefill(prefill(pb_v3, *(request(pb_v3, id=i) for i in (1, 2, 3))))
    batch = shard.v3.FilterBatch(pb_v3.FilterBatchRequest(batch_id=5, request_ids=[3, 1])).batch
    assert engine.last == ("filter", 5, (3, 1))
    assert (batch.id, list(batch.request_ids), batch.size, batch.current_tokens) == (5, [3, 1], 2, 2)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_clear_cache_of_nothing_or_of_an_unknown_batch_is_fine(shard, engine, version):
    pb, stub = {"v2": pb_v2, "v3": pb_v3}[version], getattr(shard, version)
    assert stub.ClearCache(pb.ClearCacheRequest()) == pb.ClearCacheResponse()
    assert stub.ClearCache(pb.ClearCacheRequest(id=12345)) == pb.ClearCacheResponse()
    assert stub.ClearCache(pb.ClearCacheRequest(id=0)) == pb.ClearCacheResponse()
    assert engine.commands == [("clear", None), ("clear", 12345), ("clear", 0)]


def warmup_batch(pb, **changes):
    return pb.Batch(requests=[request(pb, truncate=2, **changes)])


def test_v3_warmup_limits_are_optional(shard, engine):
    given = pb_v3.WarmupRequest(
        batch=warmup_batch(pb_v3), max_input_tokens=1024, max_prefill_tokens=4096, max_total_tokens=2048
    )
    response = shard.v3.Warmup(given)
    assert isinstance(engine.last, WarmupCommand)
    assert (engine.last.max_input_tokens, engine.last.max_prefill_tokens, engine.last.max_total_tokens) == (
        1024,
        4096,
        2048,
    )
    assert (response.max_supported_total_tokens, response.max_input_tokens, response.max_total_tokens) == (
        65536,
        1024,
        2048,
    )
    response = shard.v3.Warmup(pb_v3.WarmupRequest(batch=warmup_batch(pb_v3), max_prefill_tokens=4096))
    assert (engine.last.max_input_tokens, engine.last.max_total_tokens) == (None, None)
    assert (response.max_input_tokens, response.max_total_tokens) == (8191, 8192)


def test_v2_warmup_answers_the_supported_tokens(shard, engine):
    limits = {"max_input_length": 1024, "max_prefill_tokens": 4096, "max_total_tokens": 2048}
    response = shard.v2.Warmup(
        pb_v2.WarmupRequest(batch=warmup_batch(pb_v2, inputs="a![](data:image/png;base64,A)"), **limits)
    )
    assert response.max_supported_total_tokens == 65536
    assert (engine.last.max_input_tokens, engine.last.max_total_tokens) == (1024, 2048)


def test_warmup_images_are_ignored(shard, engine):
    chunks = pb_v3.Input(chunks=[pb_v3.InputChunk(text="_test "), IMAGE])
    batch = pb_v3.Batch(requests=[request(pb_v3, input_chunks=chunks, add_special_tokens=True)])
    shard.v3.Warmup(pb_v3.WarmupRequest(batch=batch, max_prefill_tokens=16))
    assert engine.prompts == [(BOS, *b"_test ")]


@pytest.mark.parametrize(("says_so", "prompt"), [(True, (97, 98)), (False, (BOS, 97, 98))], ids=["2.3", "2.2"])
def test_routers_that_never_say_special_tokens_get_them(shard, engine, says_so, prompt):
    batch = warmup_batch(pb_v3, add_special_tokens=says_so)
    shard.v3.Warmup(pb_v3.WarmupRequest(batch=batch, max_prefill_tokens=16))
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3, add_special_tokens=False)))
    assert engine.prompts == [prompt]


def test_the_next_router_is_judged_anew(shard, engine):
    shard.v3.Warmup(pb_v3.WarmupRequest(batch=warmup_batch(pb_v3), max_prefill_tokens=16))
    shard.v3.ClearCache(pb_v3.ClearCacheRequest(id=5))
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3)))
    assert engine.prompts == [(BOS, 97, 98)]
    shard.v3.ClearCache(pb_v3.ClearCacheRequest())
    shard.v3.Prefill(prefill(pb_v3, request(pb_v3)))
    assert engine.prompts == [(97, 98)]


def test_v2_always_wants_special_tokens(shard, engine):
    shard.v2.Warmup(pb_v2.WarmupRequest(batch=warmup_batch(pb_v2), max_prefill_tokens=16))
    shard.v2.ClearCache(pb_v2.ClearCacheRequest())
    shard.v2.Prefill(prefill(pb_v2, request(pb_v2)))
    assert engine.prompts == [(BOS, 97, 98)]


def test_prompt_log_probabilities_that_no_router_takes_are_left_out(shard, engine):
    long, short = (
        Generation(
            i, TokenList([1], [0.0], ["a"], [False]), prefill_tokens=TokenList([1] * n, [0.0] * n, ["word "] * n, [])
        )
        for i, n in enumerate((500_000, 100))
    )
    engine.result = StepResult((short, long), None, 0, 0)
    response = shard.v3.Prefill(prefill(pb_v3, request(pb_v3)))
    assert response.ByteSize() < 4 * 2**20
    assert [generation.HasField("prefill_tokens") for generation in response.generations] == [True, False]
    assert [list(generation.tokens.ids) for generation in response.generations] == [[1], [1]]


def test_alternatives_to_a_prompts_tokens_are_told_or_left_out_first(shard, engine):
    one, many = (TokenList(*([value] * n for value in (1, -1.0, "word", False))) for n in (1, 400_000))
    for top, told in ((one, True), (many, False)):
        scored = Generation(1, one, prefill_tokens=one, prefill_top_tokens=(top,))
        engine.result = StepResult((scored,), None, 0, 0)
        (generation,) = shard.v3.Prefill(prefill(pb_v3, request(pb_v3))).generations
        assert generation.HasField("prefill_tokens")
        assert [len(tokens.ids) for tokens in generation.prefill_top_tokens] == [1] * told


def test_top_tokens_that_no_router_takes_are_left_out(shard, engine):
    many = TokenList(list(range(200_000)), [-1.0] * 200_000, ["word"] * 200_000, [False] * 200_000)
    few = TokenList([1], [-1.0], ["a"], [False])
    engine.result = StepResult(
        tuple(Generation(i, few, prefill_tokens=few, top_tokens=(top,)) for i, top in enumerate((many, few, many))),
        None, 0, 0,
    )  # fmt: skip
    response = shard.v3.Prefill(prefill(pb_v3, request(pb_v3)))
    assert response.ByteSize() < 4 * 2**20
    assert sorted(len(generation.top_tokens) for generation in response.generations) == [0, 1, 1]
    assert len(response.generations[1].top_tokens) == 1
