"""What shards answer, as the router's nouns."""

from collections.abc import Iterable, Iterator, Sequence

import grpc

from text_generation_protocol.kvrun_v1 import steps_pb2 as pb_steps
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_router.errors import ShardError
from text_generation_router.types import CachedBatch, FinishReason, GeneratedText, Generation, StepTimings, Token

_FINISH_REASONS = {
    pb.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    pb.FINISH_REASON_EOS_TOKEN: FinishReason.EOS_TOKEN,
    pb.FINISH_REASON_STOP_SEQUENCE: FinishReason.STOP_SEQUENCE,
}

_FOR_CLIENTS = {
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""Statuses of errors that shards expect, whose texts are made for who asked; others are exceptions' own."""


class MergedAnswer:
    """The answers of all shards to one Prefill or Decode, read lazily. See `StepAnswer`."""

    goes_on = False

    def __init__(self, answers: Sequence[pb.PrefillResponse | pb.DecodeResponse]) -> None:
        last = answers[-1]
        self._answers = [last, *answers[:-1]]
        self.batch: CachedBatch | None = last.batch if last.HasField("batch") else None
        self.timings = _timings(max(answers, key=lambda answer: answer.total_ns))

    def request_ids(self) -> list[int]:
        """See `StepAnswer`."""
        return [request_id for answer in self._answers for request_id in _computed(answer.generations)]

    def finished(self) -> list[Generation]:
        """See `StepAnswer`."""
        return [one for answer in self._answers for one in _finished(answer.generations)]

    def generations(self) -> Iterator[Generation]:
        """See `StepAnswer`."""
        return (_generation(generation) for answer in self._answers for generation in answer.generations)


class PushedAnswer:
    """A step that the shard has sent by itself. See `StepAnswer`."""

    def __init__(self, message: pb_steps.Step) -> None:
        self._message = message
        self.batch: CachedBatch | None = message.batch if message.HasField("batch") else None
        self.goes_on = not message.last
        self.timings = _timings(message)

    def request_ids(self) -> list[int]:
        """See `StepAnswer`."""
        return [*self._message.request_ids, *_computed(self._message.generations)]

    def finished(self) -> list[Generation]:
        """See `StepAnswer`."""
        return _finished(self._message.generations)

    def generations(self) -> Iterator[Generation]:
        """See `StepAnswer`."""
        message = self._message
        special = [False] * len(message.ids)
        for place in message.special:
            special[place] = True
        tokens = map(Token, message.ids, message.texts, message.logprobs, special)
        for request_id, token in zip(message.request_ids, tokens, strict=True):
            yield Generation(request_id, [token], [], [], None)
        yield from map(_generation, message.generations)


def shard_error(failure: grpc.aio.AioRpcError) -> ShardError:
    """What the failure of a call means here, and what clients are told of it."""
    lost = failure.code() == grpc.StatusCode.UNAVAILABLE
    wrapper = "Could not connect to Text Generation server" if lost else "Server error"
    text = f"{wrapper}: {failure.details()}"
    return ShardError(text, lost, text if failure.code() in _FOR_CLIENTS else wrapper)


def _timings(message: pb.PrefillResponse | pb.DecodeResponse | pb_steps.Step) -> StepTimings:
    concat_ns = message.concat_ns if message.HasField("concat_ns") else None
    return StepTimings(message.forward_ns, message.decode_ns, concat_ns)


def _computed(messages: Iterable[pb.Generation]) -> Iterator[int]:
    """Who got tokens."""
    return (one.request_id for one in messages if not one.generated_text.HasField("failure"))


def _finished(messages: Iterable[pb.Generation]) -> list[Generation]:
    return [_generation(one) for one in messages if one.HasField("generated_text")]


def _generation(message: pb.Generation) -> Generation:
    end = message.generated_text if message.HasField("generated_text") else None
    if end is not None and end.HasField("failure"):
        # In the words of a call that fails, as it does when the request is all there is.
        return Generation(message.request_id, [], [], [], None, f"Server error: {end.failure}")
    final = None if end is None else _final(end)
    top = message.top_tokens
    told = Generation(
        message.request_id, _tokens(message.tokens), [_tokens(tokens) for tokens in top] if top else [], [], final
    )
    if message.HasField("prefill_tokens"):
        told.prefill = _prompt_tokens(message.prefill_tokens)
        told.prefill_top = [_tokens(tokens) for tokens in message.prefill_top_tokens]
    return told


def _tokens(message: pb.Tokens) -> list[Token]:
    ids = message.ids
    if len(ids) == 1:  # nearly always; iterating protobuf's lists costs as much as all the rest
        return [Token(ids[0], message.texts[0], message.logprobs[0], message.is_special[0])]
    return list(map(Token, ids, message.texts, message.logprobs, message.is_special))


def _prompt_tokens(message: pb.Tokens) -> list[Token]:
    return [Token(*fields, False) for fields in zip(message.ids, message.texts, message.logprobs, strict=False)]


def _final(message: pb.GeneratedText) -> GeneratedText:
    seed = message.seed if message.HasField("seed") else None
    return GeneratedText(message.text, message.generated_tokens, _FINISH_REASONS[message.finish_reason], seed)
