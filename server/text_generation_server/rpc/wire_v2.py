"""Protocol version 2: the shard allocates cache, adapters are `lora_id`, special tokens are always wanted."""

from text_generation_protocol.v2 import generate_pb2 as pb
from text_generation_server.engine.types import (
    BatchView,
    Request,
    ShardInfo,
    StepResult,
    WarmupCommand,
    WarmupResult,
)
from text_generation_server.images.markdown import split
from text_generation_server.rpc.wire import (
    Encode,
    EncodedPrompt,
    Prompt,
    Wire,
    sampling_params,
    stopping_params,
    within_router_limit,
)

NO_ADAPTER = "empty"
"""How kv.run's routers spell that no adapter is wanted."""


class WireV2(Wire):
    """Messages of the package generate.v2."""

    def __init__(self, images: bool = False) -> None:
        """images: whether the model takes any; otherwise what looks like one is text."""
        super().__init__(pb)
        self._images = images

    def info(self, info: ShardInfo) -> pb.InfoResponse:
        """InfoResponse: the router counts blocks of 16 whatever it is told, so there is nothing to tell."""
        return pb.InfoResponse(
            requires_padding=False,
            dtype=info.dtype,
            device_type=info.device_type,
            speculate=info.speculate,
            vocab_size=info.vocab_size,
        )

    def prompt(self, message: pb.Request) -> Prompt:
        """A Request's prompt."""
        if not self._images:
            return Prompt(message.inputs, message.truncate, add_special_tokens=True)
        (first, *texts), urls = split(message.inputs)
        images = tuple(zip(urls, texts, strict=True))
        return Prompt(first, message.truncate, add_special_tokens=True, images=images)

    def request(self, message: pb.Request, prompt: EncodedPrompt) -> Request:
        """Request; kv.run's image-generation fields are not for language models and pass unread."""
        return Request(
            id=message.id,
            prompt_ids=prompt.ids,
            sampling=sampling_params(message.parameters),
            stopping=stopping_params(message.stopping_parameters),
            prefill_logprobs=message.prefill_logprobs,
            top_n_tokens=message.top_n_tokens,
            adapter=None if message.lora_id in ("", NO_ADAPTER) else message.lora_id,
            images=prompt.images,
        )

    def joined_batch(self, message: pb.PrefillRequest) -> None:
        """Version 2 merges batches in Decode only."""
        return None

    def prefill_response(self, result: StepResult, total_ns: int) -> pb.PrefillResponse:
        """PrefillResponse: nothing is ever merged by a version 2 prefill."""
        response: pb.PrefillResponse = within_router_limit(pb.PrefillResponse(**self._step(result, total_ns)))
        return response

    def warmup_command(self, message: pb.WarmupRequest, encode: Encode) -> WarmupCommand:
        """WarmupRequest."""
        return WarmupCommand(
            requests=self._warmup_requests(message.batch.requests, encode),
            max_prefill_tokens=message.max_prefill_tokens,
            max_input_tokens=message.max_input_length or None,
            max_total_tokens=message.max_total_tokens or None,
        )

    def warmup_response(self, result: WarmupResult) -> pb.WarmupResponse:
        """WarmupResponse: the limits are the router's own."""
        return pb.WarmupResponse(max_supported_total_tokens=result.supported_tokens)

    def omits_special_tokens(self, message: pb.WarmupRequest) -> bool:
        """Version 2 has no such field."""
        return False

    def cached_batch(self, batch: BatchView) -> pb.CachedBatch:
        """CachedBatch."""
        return pb.CachedBatch(
            id=batch.id, request_ids=batch.request_ids, size=len(batch.request_ids), max_tokens=batch.max_tokens
        )
