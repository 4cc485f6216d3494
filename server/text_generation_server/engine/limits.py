"""What a cache has room for, and how requests have to be to be served from it. Knows neither rows nor free slots."""

from dataclasses import dataclass, replace

from text_generation_server.engine.types import Request
from text_generation_server.errors import InvalidRequest
from text_generation_server.specs.crossing import Views
from text_generation_server.specs.vision import Sight

SCRATCH_SLOTS = 64
"""Private tail of the cache for liveness prefills, which touch no router's slots (docs/protocol.md#liveness)."""


@dataclass(frozen=True, slots=True)
class PoolLimits:
    """num_slots: slots routers may use. max_len: longest prompt plus answer. vocab_size: bounds token ids.

    shares_prefixes: whether a request may take over what another computed for the same prompt tokens.
    speculate: most tokens guessed at once.
    start: the token that answers begin behind where an encoder reads the prompts; None where answers continue them.
    feature_places: places for features of images, 0 where the model takes none. sight: which positions see what is
    behind them. views: which images they see where layers attend to those.
    """

    num_slots: int
    max_len: int
    max_rows: int
    block_size: int
    vocab_size: int
    shares_prefixes: bool
    speculate: int = 0
    start: int | None = None
    feature_places: int = 0
    sight: Sight = Sight.CAUSAL
    views: Views | None = None

    @property
    def all_slots(self) -> int:
        """Those of routers, of liveness prefills, and where answers have a start of their own, one for each row."""
        return self.num_slots + SCRATCH_SLOTS + (0 if self.start is None else self.max_rows + 1)

    def check_ids(self, request: Request) -> None:
        """Raise InvalidRequest if the model has no such tokens."""
        size = self.vocab_size
        largest = max(request.prompt_ids, default=0)
        if largest >= size:
            raise InvalidRequest(
                f"request {request.id}: token id {largest} is outside the model's vocabulary of {size}; the tokenizer "
                "does not belong to this model"
            )
        largest = max((token for token, _ in request.sampling.logit_bias), default=0)
        if largest >= size:
            raise InvalidRequest(
                f"request {request.id}: logit_bias names token {largest}, outside the model's vocabulary of {size}; "
                "leave it out"
            )

    def check(self, request: Request) -> None:
        """Raise InvalidRequest if it is too long, or is to be where there are no slots."""
        prompt = request.prompt_ids
        if not prompt:
            raise InvalidRequest(f"request {request.id}: the prompt has no tokens; send at least one")
        if request.stopping.max_new_tokens < 1:
            raise InvalidRequest(f"request {request.id}: max_new_tokens is 0; ask for at least 1")
        if tokens_needed(request) > self.max_len:
            raise InvalidRequest(
                f"request {request.id}: {len(prompt)} prompt tokens and {request.stopping.max_new_tokens} new tokens "
                f"exceed the {self.max_len} tokens of a sequence; truncate the prompt or lower max_new_tokens"
            )
        if request.slots is not None and max(request.slots) >= self.num_slots:
            raise InvalidRequest(
                f"request {request.id}: slot {max(request.slots)} is outside the cache of {self.num_slots} slots; "
                "the router must use the limits that Warmup returned"
            )


def tokens_needed(request: Request) -> int:
    """Positions that get a cache entry: the last generated token never does."""
    return len(request.prompt_ids) + request.stopping.max_new_tokens - 1


def fitted(request: Request, slots: int) -> Request:
    """The request as it fits where the router counted fewer tokens (docs/protocol.md#slots).

    Its prompt is cut on the left; one with images is left whole, as their places say what is seen, and answers are
    shorter.
    """
    stopping, prompt = request.stopping, len(request.prompt_ids)
    room = slots - stopping.max_new_tokens + 1
    if room >= prompt:
        return request
    if request.images and slots >= prompt:
        return replace(request, stopping=replace(stopping, max_new_tokens=slots - prompt + 1))
    if request.images or room <= request.generated:
        raise InvalidRequest(
            f"request {request.id}: {slots} slots cannot hold a prompt and {request.stopping.max_new_tokens} "
            "new tokens; allocate prompt + max_new_tokens - 1"
        )
    return replace(request, prompt_ids=request.prompt_ids[-room:], cache_len=0)
