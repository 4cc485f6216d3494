"""The engine's vocabulary: what a request asks for and what a step answers.

Plain frozen values, no tensors. Nothing here knows protobuf, batches, ranks or devices.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from text_generation_server.adapters.sources import AdapterSource
from text_generation_server.images.content import content_ids
from text_generation_server.images.types import PlacedImage
from text_generation_server.sampling.params import SamplingParams

HEALTH_REQUEST_ID = 2**64 - 1
"""Request and batch id of a router's liveness prefill (docs/protocol.md#liveness)."""


class FinishReason(IntEnum):
    """Why a generation ended; the numbers are the wire's."""

    LENGTH = 0
    EOS_TOKEN = 1
    STOP_SEQUENCE = 2


@dataclass(frozen=True, slots=True)
class StoppingParams:
    """When a generation ends. `max_new_tokens` counts generated tokens, at least 1.

    stop_token_ids: end it too, and are no part of its text. min_new_tokens: so many come before an end, if they can.
    resumable: there is room for so many tokens now, but the request may come back for more.
    """

    max_new_tokens: int
    stop_sequences: tuple[str, ...] = ()
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    min_new_tokens: int = 0
    resumable: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and what to do with it.

    `slots` are the router's cache slots, position by position, or None when the engine allocates.
    The first `cache_len` positions are believed to be in those slots already; `chunk` caps the prompt tokens of the
    first step. The last `generated` ids of the prompt are this request's own, from earlier stays. With
    `prefill_logprobs`, `prefill_top_n` of the best tokens are told for each place of the prompt. Where `images` stand,
    features of theirs are computed with in place of the tokens that are there.
    """

    id: int
    prompt_ids: tuple[int, ...]
    sampling: SamplingParams
    stopping: StoppingParams
    prefill_logprobs: bool = False
    prefill_top_n: int = 0
    top_n_tokens: int = 0
    adapter: str | None = None
    slots: tuple[int, ...] | None = None
    cache_len: int = 0
    chunk: int | None = None
    generated: int = 0
    images: tuple[PlacedImage, ...] = ()

    @property
    def content(self) -> tuple[int, ...]:
        """What its prompt's keys and values depend on at each position: ids, and images where they stand."""
        if not self.images:
            return self.prompt_ids
        return content_ids(self.prompt_ids, ((placed.image.digest, placed.positions) for placed in self.images))

    @property
    def generated_ids(self) -> tuple[int, ...]:
        """What it generated in earlier stays."""
        return self.prompt_ids[len(self.prompt_ids) - self.generated :]


@dataclass(frozen=True, slots=True)
class TokenList:
    """Tokens with their natural-log probabilities and texts; all lists have one entry a token."""

    ids: list[int]
    logprobs: list[float]
    texts: list[str]
    is_special: list[bool]

    def append(self, token_id: int, logprob: float, text: str, is_special: bool) -> None:
        """Add a token."""
        self.ids.append(token_id)
        self.logprobs.append(logprob)
        self.texts.append(text)
        self.is_special.append(is_special)


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """The end of a generation: its whole text without the prompt. `seed` is None for greedy requests.

    Of a resumable request's stay that ends by length it has no text: there is more to come.
    """

    text: str
    generated_tokens: int
    finish_reason: FinishReason
    seed: int | None


@dataclass(frozen=True, slots=True)
class Failure:
    """The end of a request that failed alone, and why. `generated_tokens` counts its token too."""

    reason: str
    generated_tokens: int


@dataclass(frozen=True, slots=True)
class Generation:
    """What one step produced for one request; `finished` is set on its last one only.

    The token beside a failure means nothing: callers expect one in every generation.
    """

    request_id: int
    tokens: TokenList
    prefill_tokens: TokenList | None = None
    prefill_top_tokens: tuple[TokenList, ...] = ()
    top_tokens: tuple[TokenList, ...] = ()
    finished: GeneratedText | Failure | None = None


@dataclass(frozen=True, slots=True)
class BatchView:
    """A cached batch as callers see it: unfinished requests in batch order.

    `max_tokens` counts the distinct slots the batch may fill, `current_tokens` the tokens of its next forward,
    `prefill_room` those of new prompts that the step they would join still takes (docs/protocol.md#batches).
    """

    id: int
    request_ids: tuple[int, ...]
    max_tokens: int
    current_tokens: int
    prefill_room: int


@dataclass(frozen=True, slots=True)
class StepResult:
    """The answer of a prefill or decode; `batch` is None when every request has finished.

    Times are nanoseconds: `forward_ns` of the step on the device, `decode_ns` of the host's work on its tokens,
    `concat_ns` of merging batches (None if there was one only).
    """

    generations: tuple[Generation, ...]
    batch: BatchView | None
    forward_ns: int
    decode_ns: int
    concat_ns: int | None = None


@dataclass(frozen=True, slots=True)
class RefusedRequest:
    """A request that cannot be served as it is, and why."""

    id: int
    reason: str


@dataclass(frozen=True, slots=True)
class PrefillCommand:
    """Start `requests` as batch `batch_id`, joined to the cached batch `cached_batch_id` if there is one.

    `refused` came with them, but could not be read. `found`: adapters that they name and nobody has loaded, but which
    are on disk.
    """

    batch_id: int
    requests: tuple[Request, ...]
    cached_batch_id: int | None = None
    refused: tuple[RefusedRequest, ...] = ()
    found: Mapping[str, AdapterSource] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WarmupCommand:
    """The largest prefill a router will send, and its limits; None where the shard decides."""

    requests: tuple[Request, ...]
    max_prefill_tokens: int
    max_input_tokens: int | None = None
    max_total_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class WarmupResult:
    """What fits, in tokens: the whole cache, one prompt, one prompt with its answer. max_rows: requests at once."""

    supported_tokens: int
    max_input_tokens: int
    max_total_tokens: int
    max_rows: int


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What a shard tells of itself (docs/protocol.md#info). `vocab_size`: of the model, if that is to be told.

    `prefix_caching_by_adapter`: prefixes may be shared by routers that keep adapters apart.
    """

    dtype: str
    device_type: str
    attention: str
    block_size: int
    prefix_caching: bool
    chunking: bool
    speculate: int = 0
    vocab_size: int | None = None
    adapters: tuple[str, ...] = ()
    prefix_caching_by_adapter: bool = False
