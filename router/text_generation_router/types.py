"""The nouns of the router: what is asked of the shards, what they answer, and the limits they set.

Knows neither HTTP nor protobuf.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from text_generation_router.images.types import ImageFile
from text_generation_server.grammar.grammar_type import GrammarType


class FinishReason(StrEnum):
    """Why a generation ended, in the words of the HTTP answer."""

    LENGTH = "length"
    EOS_TOKEN = "eos_token"
    STOP_SEQUENCE = "stop_sequence"


class Token(NamedTuple):
    """A token, its text and its log-probability (natural; NaN where there is none)."""

    id: int
    text: str
    logprob: float
    special: bool


@dataclass(frozen=True, slots=True)
class GeneratedText:
    """The end of a generation. text: all of it, without the prompt. seed: None if nothing was sampled."""

    text: str
    generated_tokens: int
    finish_reason: FinishReason
    seed: int | None


@dataclass(slots=True)
class Generation:
    """What one step made for one request.

    tokens: one, or more when speculated tokens were accepted. top_tokens: the alternatives to each, if asked for.
    prefill: the prompt's tokens, with the first step and if asked for; prefill_top: the alternatives to each, likewise.
    failure: why the request failed alone, instead of all this.
    """

    request_id: int
    tokens: list[Token]
    top_tokens: list[list[Token]]
    prefill: list[Token]
    generated_text: GeneratedText | None
    failure: str | None = None
    prefill_top: Sequence[list[Token]] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled in a fraction of the time that its class and those of its tokens would take."""
        return _made_again, (
            self.request_id, list(map(tuple, self.tokens)), self.top_tokens, self.prefill, self.generated_text,
            self.failure, self.prefill_top,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must match: a JSON schema as text, a regular expression, or rules."""

    type: GrammarType
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are chosen; the defaults are the neutral values of the protocol."""

    seed: int
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    watermark: bool = False
    grammar: Grammar | None = None
    min_p: float = 0.0
    presence_penalty: float = 0.0
    count_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidRequest:
    """A request that keeps all rules.

    input_ids: of the prompt, after truncation; where an image is, a negative number of its own.
    as_ids: the shards take them as they are, and need not make them again. chunks: its texts and images in order, if it
    has any.
    truncate: most prompt tokens the shard may keep. adapter_id: None is the base model.
    priority: requests with a lower one are started before. timeout: seconds it may take, None for any.
    """

    inputs: str
    input_ids: tuple[int, ...]
    truncate: int
    sampling: Sampling
    max_new_tokens: int
    stop_sequences: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    min_new_tokens: int = 0
    prefill_logprobs: bool = False
    prefill_top_n_tokens: int = 0
    top_n_tokens: int = 0
    add_special_tokens: bool = True
    adapter_id: str | None = None
    as_ids: bool = False
    chunks: tuple[str | ImageFile, ...] = ()
    priority: int = 0
    timeout: float | None = None


@dataclass(frozen=True, slots=True)
class WireRequest:
    """A request as a shard gets it: with its id, its place in the cache, and its first chunk (None: the whole rest).

    generated_ids: what it has generated in earlier stays. resumable: it may come back after this one.
    """

    id: int
    request: ValidRequest
    blocks: list[int]
    slots: list[int]
    cache_len: int
    chunk_len: int | None
    generated_ids: Sequence[int] = ()
    resumable: bool = False


class CachedBatch(Protocol):
    """A batch that the shards keep between calls; passed back to them as it came."""

    @property
    def id(self) -> int: ...
    @property
    def request_ids(self) -> Iterable[int]: ...
    @property
    def size(self) -> int: ...
    @property
    def max_tokens(self) -> int: ...
    @property
    def current_tokens(self) -> int: ...
    @property
    def prefill_room(self) -> int: ...


@dataclass(frozen=True, slots=True)
class StepTimings:
    """Nanoseconds of a step on the slowest shard; concat_ns is None when no batches were joined."""

    forward_ns: int
    decode_ns: int
    concat_ns: int | None


class StepAnswer(Protocol):
    """A step. batch is None when no request of it is unfinished. goes_on: another follows by itself."""

    @property
    def batch(self) -> CachedBatch | None: ...
    @property
    def timings(self) -> StepTimings: ...
    @property
    def goes_on(self) -> bool: ...
    def request_ids(self) -> list[int]:
        """The requests that got tokens."""

    def finished(self) -> list[Generation]:
        """What the requests got that have left the batch, or failed."""

    def generations(self) -> Iterator[Generation]:
        """What each request got, made while being read."""


@dataclass(frozen=True, slots=True)
class ShardInfo:
    """What the shards say about themselves. vocab_size: token ids they can serve are below, None if they do not say.

    shares_prefixes: whether requests with the same adapter, or without, may. adapters: those that requests may name.
    extensions: what they read of requests that only ours know (docs/protocol.md#extensions). pushes_steps: decodes need
    not be asked for one by one.
    """

    requires_padding: bool
    dtype: str
    device_type: str
    window_size: int | None
    speculate: int
    support_chunking: bool
    shares_prefixes: bool
    attention_impl: str
    block_size: int
    support_resuming: bool = False
    tells_prefill_room: bool = False
    pushes_steps: bool = False
    vocab_size: int | None = None
    adapters: tuple[str, ...] = ()
    extensions: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class WarmupAnswer:
    """The limits after warm-up, in tokens; supported_total is None if the shards do not size a cache.

    most_requests: that fit at once, None if the shards do not say.
    """

    supported_total: int | None
    max_input_tokens: int
    max_total_tokens: int
    most_requests: int | None = None


@dataclass(frozen=True, slots=True)
class TokenLimits:
    """What the router holds requests and batches to, in tokens."""

    max_input_tokens: int
    max_total_tokens: int
    max_batch_prefill_tokens: int
    max_batch_total_tokens: int


def _made_again(request_id: int, tokens: list[tuple[int, str, float, bool]], *rest: Any) -> Generation:
    return Generation(request_id, list(map(Token._make, tokens)), *rest)
