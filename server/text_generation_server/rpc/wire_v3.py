"""Protocol version 3: prompts in chunks, the router's cache slots, chunked prefill into a cached batch."""

from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_server.engine.types import (
    BatchView,
    Request,
    ShardInfo,
    StepResult,
    WarmupCommand,
    WarmupResult,
)
from text_generation_server.rpc.wire import (
    Encode,
    EncodedPrompt,
    Prompt,
    Wire,
    sampling_params,
    stopping_params,
    within_router_limit,
)
from text_generation_server.sampling.params import SamplingParams

EXTENSIONS = (
    "min_p",
    "presence_penalty",
    "count_penalty",
    "logit_bias",
    "min_new_tokens",
    "stop_token_ids",
    "prompt_ids",
    "prefill_top_n_tokens",
    "ebnf",
)
"""What is read of requests that other shards of this protocol do not know (docs/protocol.md#extensions)."""

IMAGES = "images"
"""What is told beside them where the model takes images."""


class WireV3(Wire):
    """Messages of the package generate.v3. Prompt log-probabilities are given only where the operator allows them."""

    def __init__(self, prefill_logprobs: bool, images: bool = False) -> None:
        """images: whether the model takes any, which is told."""
        super().__init__(pb)
        self._prefill_logprobs = prefill_logprobs
        self._extensions = (*EXTENSIONS, IMAGES) if images else EXTENSIONS

    def info(self, info: ShardInfo) -> pb.InfoResponse:
        """InfoResponse."""
        return pb.InfoResponse(
            requires_padding=False,
            dtype=info.dtype,
            device_type=info.device_type,
            speculate=info.speculate,
            support_chunking=info.chunking,
            use_prefix_caching=info.prefix_caching,
            attention_impl=info.attention,
            block_size=info.block_size,
            support_resuming=True,
            tells_prefill_room=True,
            pushes_steps=True,
            vocab_size=info.vocab_size,
            adapter_ids=info.adapters,
            prefix_caching_by_adapter=info.prefix_caching_by_adapter,
            request_extensions=self._extensions,
        )

    def prompt(self, message: pb.Request) -> Prompt:
        """A Request's prompt."""
        text, images = _text_and_images(message)
        rest = message.truncate, message.add_special_tokens, tuple(message.prompt_ids)
        return Prompt(text, *rest, images)

    def request(self, message: pb.Request, prompt: EncodedPrompt) -> Request:
        """Request; slots say all that blocks say, and more. What it generated before comes after its prompt."""
        return Request(
            id=message.id,
            prompt_ids=(*prompt.ids, *message.generated_ids),
            sampling=_sampling(message.parameters),
            stopping=stopping_params(
                message.stopping_parameters,
                resumable=message.resumable,
                min_new_tokens=message.stopping_parameters.min_new_tokens,
                stop_token_ids=tuple(message.stopping_parameters.stop_token_ids),
            ),
            prefill_logprobs=message.prefill_logprobs and self._prefill_logprobs,
            prefill_top_n=message.prefill_top_n_tokens,
            top_n_tokens=message.top_n_tokens,
            adapter=message.adapter_id or None,
            slots=tuple(message.slots) or None,
            cache_len=message.cache_len,
            chunk=message.chunk_len if message.HasField("chunk_len") else None,
            generated=len(message.generated_ids),
            images=prompt.images,
        )

    def joined_batch(self, message: pb.PrefillRequest) -> int | None:
        """Present only from routers that were told of chunked prefill."""
        return message.cached_batch.id if message.HasField("cached_batch") else None

    def prefill_response(self, result: StepResult, total_ns: int) -> pb.PrefillResponse:
        """PrefillResponse."""
        response = pb.PrefillResponse(**self._step(result, total_ns), concat_ns=result.concat_ns)
        limited: pb.PrefillResponse = within_router_limit(response)
        return limited

    def warmup_command(self, message: pb.WarmupRequest, encode: Encode) -> WarmupCommand:
        """WarmupRequest; routers up to 2.4.0 set both limits always, 0 among them."""
        return WarmupCommand(
            requests=self._warmup_requests(message.batch.requests, encode),
            max_prefill_tokens=message.max_prefill_tokens,
            max_input_tokens=message.max_input_tokens or None,
            max_total_tokens=message.max_total_tokens or None,
        )

    def warmup_response(self, result: WarmupResult) -> pb.WarmupResponse:
        """WarmupResponse."""
        return pb.WarmupResponse(
            max_supported_total_tokens=result.supported_tokens,
            max_input_tokens=result.max_input_tokens,
            max_total_tokens=result.max_total_tokens,
            max_batch_size=result.max_rows,
        )

    def omits_special_tokens(self, message: pb.WarmupRequest) -> bool:
        """Routers before 2.3 do not know the field; later ones set it in every warm-up request."""
        return not any(request.add_special_tokens for request in message.batch.requests)

    def cached_batch(self, batch: BatchView) -> pb.CachedBatch:
        """CachedBatch."""
        return cached_batch(batch)


def cached_batch(batch: BatchView) -> pb.CachedBatch:
    """CachedBatch."""
    return pb.CachedBatch(
        id=batch.id,
        request_ids=batch.request_ids,
        size=len(batch.request_ids),
        max_tokens=batch.max_tokens,
        current_tokens=batch.current_tokens,
        prefill_room=batch.prefill_room,
    )


def _sampling(message: pb.NextTokenChooserParameters) -> SamplingParams:
    return sampling_params(
        message,
        min_p=message.min_p,
        presence_penalty=message.presence_penalty,
        count_penalty=message.count_penalty,
        logit_bias=tuple({one.id: one.bias for one in message.logit_bias}.items()),
    )


def _text_and_images(message: pb.Request) -> tuple[str, tuple[tuple[bytes, str], ...]]:
    """The chunks of text before the first image, and each image with those behind it; `inputs` without chunks."""
    chunks = message.input_chunks.chunks
    if not chunks:
        return message.inputs, ()
    texts, files = [""], list[bytes]()
    for chunk in chunks:
        if chunk.WhichOneof("chunk") == "image":
            files.append(chunk.image.data)
            texts.append("")
        else:
            texts[-1] += chunk.text
    return texts[0], tuple(zip(files, texts[1:], strict=True))
