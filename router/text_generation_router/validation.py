"""The rules that a request must keep, in the order in which they are reported, and the request in the shards' terms.

Tokenises, since some rules are about length. Knows neither HTTP nor batches.
"""

import secrets
from dataclasses import dataclass, replace

from text_generation_router.adapters import Adapters
from text_generation_router.errors import InvalidInput
from text_generation_router.grammar import valid_grammar
from text_generation_router.schemas import GenerateParameters, GenerateRequest
from text_generation_router.tokenizer import PromptTokenizer
from text_generation_router.types import Sampling, TokenLimits, ValidRequest
from text_generation_server.errors import excerpt
from text_generation_server.grammar.compiler import GrammarCompiler

LEAST_ROOM = 1024
"""So many new tokens must fit if more are asked for than there is room for; the answer then ends with the room."""

_BASE_MODEL = ("", "empty")


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a client may ask for at most."""

    max_best_of: int
    max_stop_sequences: int
    max_top_n_tokens: int
    max_client_batch_size: int = 1
    grammars: bool = True


class Validator:
    """Turns what a client sent into what the shards get. vocab_size: token ids must be below, if that is known."""

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        grammars: GrammarCompiler,
        requests: RequestLimits,
        tokens: TokenLimits,
        adapters: Adapters,
        vocab_size: int | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._requests = requests
        self._tokens = tokens
        self._vocab_size = vocab_size
        self.adapters = adapters

    def check_form(self, parameters: GenerateParameters, stream: bool) -> int:
        """The rules that come before admission: what the form of the answer forbids. Returns `best_of`, at least 1."""
        best_of = parameters.best_of
        if stream:
            _require(best_of in (None, 1), "`best_of` != 1 is not supported when streaming tokens")
            _require(
                not parameters.decoder_input_details, "`decoder_input_details` is not supported when streaming tokens"
            )
            return 1
        limit = self._requests.max_best_of
        _require((best_of or 1) == 1 or limit > 1, "`best_of` != 1 is not allowed for this endpoint")
        _require((best_of or 1) <= limit, f"`best_of` must be > 0 and <= {limit}. Given: {best_of}")
        return best_of or 1

    def check_batch(self, prompts: int, choices: int) -> None:
        """The rules of requests for several answers: to several prompts, and to each of them."""
        limits = self._requests
        _require(
            prompts <= limits.max_client_batch_size,
            f"`prompt` may have up to {limits.max_client_batch_size} texts (--max-client-batch-size). Given: {prompts}",
        )
        _require(
            1 <= choices <= limits.max_best_of,
            f"`n` must be > 0 and <= {limits.max_best_of} (--max-best-of). Given: {choices}",
        )

    async def validate(self, request: GenerateRequest, add_special_tokens: bool = True) -> ValidRequest:
        """Check everything else. Raises InvalidInput with the first rule that is broken.

        add_special_tokens: whether the tokenizer puts them around the prompt, which does not have them yet.
        """
        parameters = request.parameters
        _check_values(parameters)
        self._check_counts(parameters)
        adapter = await self._adapter(request)
        _require(request.inputs != "", "`inputs` cannot be empty")
        truncate, limit = parameters.truncate, self._tokens.max_input_tokens
        _require(
            truncate is None or 0 < truncate <= limit,
            f"`truncate` must be strictly positive and less than {limit}. Given: {truncate}",
        )
        valid = ValidRequest(
            inputs=request.inputs,
            input_ids=await self._encode(request.inputs, truncate or 0, add_special_tokens),
            truncate=truncate or limit,
            sampling=_sampling(parameters),
            max_new_tokens=0,
            stop_sequences=parameters.stop_sequences,
            prefill_logprobs=bool(parameters.decoder_input_details),
            top_n_tokens=parameters.top_n_tokens or 0,
            add_special_tokens=add_special_tokens,
            adapter_id=adapter,
        )
        valid = self._fitting(valid, parameters.max_new_tokens)
        if parameters.grammar is None:
            return valid
        _require(self._requests.grammars, "grammar is not supported")
        sampling = replace(valid.sampling, grammar=await valid_grammar(parameters.grammar, self._grammars))
        return replace(valid, sampling=sampling)

    async def _encode(self, text: str, truncate: int, add_special_tokens: bool) -> tuple[int, ...]:
        try:
            ids = await self._tokenizer.encode(text, truncate, add_special_tokens)
        except Exception as error:  # tokenizers raise what they like
            raise InvalidInput(f"tokenizer error {excerpt(str(error))}") from error
        largest, size = max(ids, default=0), self._vocab_size
        _require(
            size is None or largest < size,
            f"`inputs` has a token that the model does not know: id {largest}, expected less than {size}; leave it out",
        )
        return ids

    def _fitting(self, request: ValidRequest, wanted: int | None) -> ValidRequest:
        """The request with what it may generate, by the rules of length; without a wish all there is room for.

        As with text-generation-inference 3, the answer to a longer wish ends where the room does.
        """
        length, limits = len(request.input_ids), self._tokens
        room = max(limits.max_total_tokens - length, 0)
        least = min(room if wanted is None else wanted, LEAST_ROOM)
        _require(
            length + least <= limits.max_total_tokens,
            f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
            f"Given: {length} `inputs` tokens and {least} `max_new_tokens`",
        )
        _require(
            length <= limits.max_input_tokens,
            f"`inputs` must have less than {limits.max_input_tokens} tokens. Given: {length}",
        )
        return replace(request, max_new_tokens=room if wanted is None else min(wanted, room))

    async def _adapter(self, request: GenerateRequest) -> str | None:
        """The adapter that a request names, wherever it may; None for the model itself."""
        found: set[str] = set()
        for place in (request.parameters, request):
            for name, value in (("adapter_id", place.adapter_id), ("lora_id", place.lora_id)):
                if value is None or value in _BASE_MODEL:
                    continue
                known, served = await self.adapters.find(value), ", ".join(self.adapters.names)
                must = f"one of {served}" if served else "left out: no adapters are served"
                _require(known, f"`{name}` must be {must}. Given: {excerpt(value)}")
                found.add(value)
        _require(len(found) <= 1, f"a request has one adapter. Given: {', '.join(sorted(found))}")
        return found.pop() if found else None

    def _check_counts(self, parameters: GenerateParameters) -> None:
        stops, limits = len(parameters.stop_sequences), self._requests
        _require(parameters.max_new_tokens != 0, "`max_new_tokens` must be strictly positive")
        _require(
            stops <= limits.max_stop_sequences,
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {stops}",
        )
        _require(parameters.seed is None or (parameters.best_of or 1) == 1, "`seed` must not be set when `best_of` > 1")
        top_n = parameters.top_n_tokens or 0
        _require(
            top_n <= limits.max_top_n_tokens,
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {top_n}",
        )


def random_seed() -> int:
    """A seed for a request that did not bring one."""
    return secrets.randbits(64)


def _check_values(p: GenerateParameters) -> None:
    wishes = (p.temperature, p.top_k, p.top_p, p.typical_p)
    sampled = bool(p.do_sample) or any(wish is not None for wish in wishes)
    _require((p.best_of or 1) == 1 or sampled, "you must use sampling when `best_of` is > 1")
    _require(p.temperature is None or p.temperature > 0, "`temperature` must be strictly positive")
    _require(p.repetition_penalty is None or p.repetition_penalty > 0, "`repetition_penalty` must be strictly positive")
    _require(
        p.frequency_penalty is None or -2 <= p.frequency_penalty <= 2, "`frequency_penalty` must be >= -2.0 and <= 2.0"
    )
    _require(p.top_p is None or 0 < p.top_p <= 1, "`top_p` must be > 0.0 and <= 1.0")
    _require(p.typical_p is None or 0 < p.typical_p < 1, "`typical_p` must be > 0.0 and < 1.0")
    _require(p.top_k is None or p.top_k > 0, "`top_k` must be strictly positive")


def _sampling(p: GenerateParameters) -> Sampling:
    return Sampling(
        seed=random_seed() if p.seed is None else p.seed,
        do_sample=bool(p.do_sample),
        temperature=1.0 if p.temperature is None else p.temperature,
        top_k=p.top_k or 0,
        top_p=1.0 if p.top_p is None else p.top_p,
        typical_p=1.0 if p.typical_p is None else p.typical_p,
        repetition_penalty=1.0 if p.repetition_penalty is None else p.repetition_penalty,
        frequency_penalty=0.0 if p.frequency_penalty is None else p.frequency_penalty,
        watermark=bool(p.watermark),
    )


def _require(kept: bool, rule: str) -> None:
    if not kept:
        raise InvalidInput(rule)
