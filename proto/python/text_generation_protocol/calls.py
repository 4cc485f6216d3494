"""Calls on shards as routers make them (generate.v3): what channels are like, requests, batches, and the warm-up.

For callers of any transport. Knows neither sockets nor clocks, and nothing of who chooses requests and their places.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from text_generation_protocol.v3 import generate_pb2 as pb

CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
)
"""Messages of any size, a connection for each channel, and failures as they come."""

_NEUTRAL = {"temperature": 1.0, "top_p": 1.0, "typical_p": 1.0, "repetition_penalty": 1.0}

_WARMUP_TEXT = "_test "
"""At least one token, whatever the tokenizer."""

_WARMUP_PARAMETERS = {
    "temperature": 0.9,
    "top_k": 10,
    "top_p": 0.9,
    "typical_p": 0.9,
    "repetition_penalty": 1.2,
    "frequency_penalty": 0.1,
    "watermark": True,
}
_WARMUP_TOP_N_TOKENS = 20


def target(place: str) -> str:
    """What a channel is opened to: of the path of a Unix socket, or of a URL that ServiceDiscovery names."""
    return f"unix:{place.removeprefix('unix://')}"


def parameters(**changes: Any) -> pb.NextTokenChooserParameters:
    """Greedy and neutral but for the changes: the zeros of absent fields are not neutral."""
    return pb.NextTokenChooserParameters(**_NEUTRAL | changes)


def request(
    text: str,
    truncate: int,
    max_new_tokens: int,
    chooser: pb.NextTokenChooserParameters,
    *,
    stop_sequences: Sequence[str] = (),
    stop_token_ids: Sequence[int] = (),
    min_new_tokens: int = 0,
    ignore_eos: bool = False,
    chunks: Sequence[str | tuple[bytes, str]] = (),
    **fields: Any,
) -> pb.Request:
    """A request of at most `truncate` prompt tokens, special ones among them unless `fields` say otherwise.

    The text is there twice: shards read either field. chunks: its parts, if images are between them: each a text, or a
    file and its content type. fields: of pb.Request, the request's id and place among them.
    """
    stopping = pb.StoppingCriteriaParameters(
        max_new_tokens=max_new_tokens,
        stop_sequences=stop_sequences,
        ignore_eos_token=ignore_eos,
        min_new_tokens=min_new_tokens,
        stop_token_ids=stop_token_ids,
    )
    return pb.Request(
        inputs=text,
        input_chunks=pb.Input(chunks=[_chunk(part) for part in chunks or (text,)]),
        truncate=truncate,
        parameters=chooser,
        stopping_parameters=stopping,
        **{"add_special_tokens": True} | fields,
    )


def _chunk(part: str | tuple[bytes, str]) -> pb.InputChunk:
    if isinstance(part, str):
        return pb.InputChunk(text=part)
    data, kind = part
    return pb.InputChunk(image=pb.Image(data=data, mimetype=kind))


def batch(batch_id: int, requests: Sequence[pb.Request], max_tokens: int | None = None) -> pb.Batch:
    """Requests to be prefilled together. max_tokens: that they may come to hold; None counts their slots."""
    return pb.Batch(
        id=batch_id,
        requests=requests,
        size=len(requests),
        max_tokens=sum(len(one.slots) for one in requests) if max_tokens is None else max_tokens,
        max_blocks=max((len(one.blocks) for one in requests), default=0),
    )


def warmup(
    max_prefill_tokens: int,
    max_input_tokens: int | None = None,
    max_total_tokens: int | None = None,
    most_requests: int | None = None,
) -> pb.WarmupRequest:
    """Requests that fill the largest prefill, with every kind of sampling on; shards cut each to its length.

    Limits in tokens: of a forward pass, a prompt, and a prompt with its answer. None lets the shards decide.
    """
    requests: list[pb.Request] = []
    missing = max_prefill_tokens
    while missing > 0 and len(requests) != most_requests:
        length = min(missing, max_input_tokens or missing)
        requests.append(_warmup_request(length, max((max_total_tokens or 0) - length, 1)))
        missing -= length
    return pb.WarmupRequest(
        batch=batch(0, requests, max_tokens=max_input_tokens or 0),
        max_input_tokens=max_input_tokens,
        max_prefill_tokens=max_prefill_tokens,
        max_total_tokens=max_total_tokens,
    )


def least(answers: Iterable[pb.WarmupResponse]) -> pb.WarmupResponse:
    """Of several shards' answers to a warm-up the one that all of them can keep to."""
    return min(answers, key=lambda answer: (_supported(answer), answer.max_input_tokens, answer.max_total_tokens))


def _supported(answer: pb.WarmupResponse) -> int:
    return answer.max_supported_total_tokens if answer.HasField("max_supported_total_tokens") else -1


def _warmup_request(length: int, max_new_tokens: int) -> pb.Request:
    return request(
        _WARMUP_TEXT * length,
        length,
        max_new_tokens,
        parameters(**_WARMUP_PARAMETERS),
        ignore_eos=True,
        prefill_logprobs=True,
        top_n_tokens=_WARMUP_TOP_N_TOKENS,
    )
