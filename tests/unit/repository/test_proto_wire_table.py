"""Every message, field, enum and call of both protocol versions, against tables of what routers speak."""

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3

# message.field, number, type, presence; `opt` has explicit presence, `msg` is a message, `-` is left out when zero.
BOTH = """
InfoResponse.requires_padding 1 bool -
InfoResponse.dtype 2 string -
InfoResponse.device_type 3 string -
InfoResponse.window_size 4 uint32 opt
InfoResponse.speculate 5 uint32 -
InfoResponse.vocab_size 1000 uint32 opt
ServiceDiscoveryResponse.urls 1 repeated-string -
ClearCacheRequest.id 1 uint64 opt
NextTokenChooserParameters.temperature 1 float -
NextTokenChooserParameters.top_k 2 uint32 -
NextTokenChooserParameters.top_p 3 float -
NextTokenChooserParameters.typical_p 4 float -
NextTokenChooserParameters.do_sample 5 bool -
NextTokenChooserParameters.seed 6 uint64 -
NextTokenChooserParameters.repetition_penalty 7 float -
NextTokenChooserParameters.watermark 8 bool -
NextTokenChooserParameters.frequency_penalty 9 float -
NextTokenChooserParameters.grammar 10 string -
NextTokenChooserParameters.grammar_type 11 GrammarType -
StoppingCriteriaParameters.max_new_tokens 1 uint32 -
StoppingCriteriaParameters.stop_sequences 2 repeated-string -
StoppingCriteriaParameters.ignore_eos_token 3 bool -
Request.id 1 uint64 -
Request.inputs 2 string -
Request.truncate 3 uint32 -
Request.parameters 4 NextTokenChooserParameters msg
Request.stopping_parameters 5 StoppingCriteriaParameters msg
Request.prefill_logprobs 6 bool -
Request.top_n_tokens 7 uint32 -
Batch.id 1 uint64 -
Batch.requests 2 repeated-Request -
Batch.size 3 uint32 -
Batch.max_tokens 4 uint32 -
CachedBatch.id 1 uint64 -
CachedBatch.request_ids 2 repeated-uint64 -
CachedBatch.size 3 uint32 -
CachedBatch.max_tokens 4 uint32 -
GeneratedText.text 1 string -
GeneratedText.generated_tokens 2 uint32 -
GeneratedText.finish_reason 3 FinishReason -
GeneratedText.seed 4 uint64 opt
GeneratedText.failure 1000 string opt
Tokens.ids 1 repeated-uint32 -
Tokens.logprobs 2 repeated-float -
Tokens.texts 3 repeated-string -
Tokens.is_special 4 repeated-bool -
Generation.request_id 1 uint64 -
Generation.prefill_tokens 2 Tokens msg
Generation.tokens 3 Tokens msg
Generation.generated_text 4 GeneratedText opt
Generation.top_tokens 5 repeated-Tokens -
FilterBatchRequest.batch_id 1 uint64 -
FilterBatchRequest.request_ids 2 repeated-uint64 -
FilterBatchResponse.batch 1 CachedBatch msg
PrefillRequest.batch 1 Batch msg
PrefillResponse.generations 1 repeated-Generation -
PrefillResponse.batch 2 CachedBatch opt
PrefillResponse.forward_ns 3 uint64 -
PrefillResponse.decode_ns 4 uint64 -
PrefillResponse.total_ns 5 uint64 -
DecodeRequest.batches 1 repeated-CachedBatch -
DecodeResponse.generations 1 repeated-Generation -
DecodeResponse.batch 2 CachedBatch opt
DecodeResponse.forward_ns 3 uint64 -
DecodeResponse.decode_ns 4 uint64 -
DecodeResponse.total_ns 5 uint64 -
DecodeResponse.concat_ns 6 uint64 opt
WarmupRequest.batch 1 Batch msg
WarmupRequest.max_prefill_tokens 3 uint32 -
WarmupResponse.max_supported_total_tokens 1 uint32 opt
"""

ONLY_V2 = """
Request.lora_id 8 string opt
Request.images_per_prompt 9 uint32 opt
Request.inference_steps 10 uint32 opt
Request.image_input 11 string opt
Request.image_strength 12 float opt
WarmupRequest.max_input_length 2 uint32 -
WarmupRequest.max_total_tokens 4 uint32 -
"""

ONLY_V3 = """
InfoResponse.support_resuming 100 bool -
Request.generated_ids 100 repeated-uint32 -
Request.resumable 101 bool -
InfoResponse.tells_prefill_room 1004 bool -
InfoResponse.pushes_steps 1005 bool -
InfoResponse.support_chunking 6 bool -
InfoResponse.use_prefix_caching 7 bool -
InfoResponse.adapter_ids 1001 repeated-string -
InfoResponse.prefix_caching_by_adapter 1002 bool -
InfoResponse.request_extensions 1003 repeated-string -
NextTokenChooserParameters.min_p 1000 float -
NextTokenChooserParameters.presence_penalty 1001 float -
NextTokenChooserParameters.count_penalty 1002 float -
NextTokenChooserParameters.logit_bias 1003 repeated-TokenBias -
TokenBias.id 1 uint32 -
TokenBias.bias 2 float -
StoppingCriteriaParameters.min_new_tokens 1000 uint32 -
StoppingCriteriaParameters.stop_token_ids 1001 repeated-uint32 -
Request.prompt_ids 1000 repeated-uint32 -
Request.prefill_top_n_tokens 1001 uint32 -
Generation.prefill_top_tokens 1000 repeated-Tokens -
InfoResponse.attention_impl 8 string -
InfoResponse.block_size 9 uint32 -
Image.data 1 bytes -
Image.mimetype 2 string -
InputChunk.text 1 string chunk
InputChunk.image 2 Image chunk
Input.chunks 1 repeated-InputChunk -
Request.input_chunks 8 Input msg
Request.blocks 9 repeated-uint32 -
Request.slots 10 repeated-uint32 -
Request.adapter_id 11 string opt
Request.cache_len 12 uint32 -
Request.add_special_tokens 13 bool -
Request.chunk_len 14 uint32 opt
Batch.max_blocks 5 uint32 -
CachedBatch.current_tokens 5 uint32 -
CachedBatch.prefill_room 100 uint32 -
PrefillRequest.cached_batch 2 CachedBatch msg
PrefillResponse.concat_ns 6 uint64 opt
WarmupRequest.max_input_tokens 2 uint32 opt
WarmupRequest.max_total_tokens 4 uint32 opt
WarmupResponse.max_input_tokens 2 uint32 -
WarmupResponse.max_total_tokens 3 uint32 -
WarmupResponse.max_batch_size 1000 uint32 opt
"""

EMPTY = {"ClearCacheResponse", "HealthRequest", "HealthResponse", "InfoRequest", "ServiceDiscoveryRequest"}
CALLS = {"Info", "ServiceDiscovery", "ClearCache", "FilterBatch", "Warmup", "Prefill", "Decode", "Health"}
ENUMS = {
    "GrammarType": {"GRAMMAR_TYPE_NONE": 0, "GRAMMAR_TYPE_JSON": 1, "GRAMMAR_TYPE_REGEX": 2},
    "FinishReason": {"FINISH_REASON_LENGTH": 0, "FINISH_REASON_EOS_TOKEN": 1, "FINISH_REASON_STOP_SEQUENCE": 2},
}

ENUM_VALUES_OF_OURS = {"v2": {}, "v3": {"GRAMMAR_TYPE_EBNF": 1000}}

VERSIONS = [("v2", pb_v2, BOTH + ONLY_V2), ("v3", pb_v3, BOTH + ONLY_V3)]


def file_of(pb) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(proto)
    return proto


def describe(message, field) -> str:
    named = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    kind = field.type_name.rpartition(".")[2] or named
    if field.label == FieldDescriptorProto.LABEL_REPEATED:
        kind, presence = f"repeated-{kind}", "-"
    elif field.proto3_optional:
        presence = "opt"
    elif field.HasField("oneof_index"):
        presence = message.oneof_decl[field.oneof_index].name
    else:
        presence = "msg" if field.type == FieldDescriptorProto.TYPE_MESSAGE else "-"
    return f"{message.name}.{field.name} {field.number} {kind} {presence}"


@pytest.mark.parametrize(("version", "pb", "table"), VERSIONS, ids=["v2", "v3"])
def test_fields_are_those_of_the_table(version, pb, table):
    fields = {describe(message, field) for message in file_of(pb).message_type for field in message.field}
    assert fields == set(table.split("\n")) - {""}


@pytest.mark.parametrize(("version", "pb", "table"), VERSIONS, ids=["v2", "v3"])
def test_messages_without_fields(version, pb, table):
    assert {message.name for message in file_of(pb).message_type if not message.field} == EMPTY


@pytest.mark.parametrize(("version", "pb", "table"), VERSIONS, ids=["v2", "v3"])
def test_enums(version, pb, table):
    expected = ENUMS | {"GrammarType": ENUMS["GrammarType"] | ENUM_VALUES_OF_OURS[version]}
    assert {enum.name: {v.name: v.number for v in enum.value} for enum in file_of(pb).enum_type} == expected


@pytest.mark.parametrize(("version", "pb", "table"), VERSIONS, ids=["v2", "v3"])
def test_calls_are_unary_and_named_after_their_messages(version, pb, table):
    (service,) = file_of(pb).service
    assert (pb.DESCRIPTOR.package, service.name) == (f"generate.{version}", "TextGenerationService")
    assert {method.name for method in service.method} == CALLS
    for method in service.method:
        package = f".generate.{version}."
        assert (method.input_type, method.output_type) == (
            f"{package}{method.name}Request",
            f"{package}{method.name}Response",
        )
        assert not method.client_streaming and not method.server_streaming


@pytest.mark.parametrize("pb", [pb_v2, pb_v3], ids=["v2", "v3"])
def test_bytes_of_a_generated_text(pb):
    text = pb.GeneratedText(text="Hi", generated_tokens=2, finish_reason=pb.FINISH_REASON_EOS_TOKEN, seed=7)
    assert text.SerializeToString() == bytes.fromhex("0a 02 48 69 10 02 18 01 20 07")


def test_kv_run_lora_id_bytes():
    assert pb_v2.Request.FromString(bytes.fromhex("42 05 65 6d 70 74 79")).lora_id == "empty"


def test_both_versions_load_into_one_process_under_distinct_names():
    assert pb_v2.DESCRIPTOR.name != pb_v3.DESCRIPTOR.name
    assert pb_v2.DESCRIPTOR.pool is pb_v3.DESCRIPTOR.pool
