"""What the router asks of shards, as messages. How routers write them is in `text_generation_protocol.calls`."""

from text_generation_protocol import calls
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_router.types import Sampling, WireRequest
from text_generation_server.grammar.grammar_type import GrammarType

_GRAMMAR_TYPES = {
    GrammarType.JSON: pb.GRAMMAR_TYPE_JSON,
    GrammarType.REGEX: pb.GRAMMAR_TYPE_REGEX,
    GrammarType.EBNF: pb.GRAMMAR_TYPE_EBNF,
}


def request_message(wire: WireRequest) -> pb.Request:
    """Request."""
    request = wire.request
    return calls.request(
        "".join(part for part in request.chunks if isinstance(part, str)) if request.chunks else request.inputs,
        request.truncate,
        request.max_new_tokens,
        _parameters(request.sampling),
        stop_sequences=request.stop_sequences,
        stop_token_ids=request.stop_token_ids,
        min_new_tokens=request.min_new_tokens,
        ignore_eos=request.ignore_eos,
        chunks=[part if isinstance(part, str) else (part.data, part.kind) for part in request.chunks],
        prompt_ids=request.input_ids if request.as_ids else (),
        id=wire.id,
        add_special_tokens=request.add_special_tokens,
        adapter_id=request.adapter_id,
        blocks=wire.blocks,
        slots=wire.slots,
        cache_len=wire.cache_len,
        chunk_len=wire.chunk_len,
        generated_ids=wire.generated_ids,
        resumable=wire.resumable,
        prefill_logprobs=request.prefill_logprobs,
        prefill_top_n_tokens=request.prefill_top_n_tokens,
        top_n_tokens=request.top_n_tokens,
    )


def _parameters(sampling: Sampling) -> pb.NextTokenChooserParameters:
    return pb.NextTokenChooserParameters(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        typical_p=sampling.typical_p,
        do_sample=sampling.do_sample,
        seed=sampling.seed,
        repetition_penalty=sampling.repetition_penalty,
        frequency_penalty=sampling.frequency_penalty,
        watermark=sampling.watermark,
        grammar=sampling.grammar.text if sampling.grammar else "",
        grammar_type=_GRAMMAR_TYPES[sampling.grammar.type] if sampling.grammar else pb.GRAMMAR_TYPE_NONE,
        min_p=sampling.min_p,
        presence_penalty=sampling.presence_penalty,
        count_penalty=sampling.count_penalty,
        logit_bias=[pb.TokenBias(id=token, bias=bias) for token, bias in sampling.logit_bias],
    )
