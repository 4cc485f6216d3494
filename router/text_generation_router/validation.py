"""The rules that a request must keep, in the order in which they are reported, and the request in the shards' terms.

Tokenises, since some rules are about length. Knows neither HTTP nor batches.
"""

from collections.abc import Collection, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from text_generation_router.backend import AdapterNames
from text_generation_router.errors import InvalidInput
from text_generation_router.grammar import valid_grammar
from text_generation_router.parameters import check_extensions, check_values, require, require_known, sampling
from text_generation_router.prompts import Images, PromptReader, ReadPrompt
from text_generation_router.schemas import AnyGrammar, EbnfGrammar, GenerateParameters, GenerateRequest
from text_generation_router.tokenizer import PromptTokenizer
from text_generation_router.types import TokenLimits, ValidRequest
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
    """Turns what a client sent into what the shards get. vocab_size: token ids must be below, if that is known.

    extensions: what the shards know beyond what all do. images: None where the model takes none.
    """

    def __init__(
        self,
        tokenizer: PromptTokenizer,
        grammars: GrammarCompiler,
        requests: RequestLimits,
        tokens: TokenLimits,
        adapters: AdapterNames,
        vocab_size: int | None = None,
        extensions: AbstractSet[str] = frozenset(),
        images: Images | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._grammars = grammars
        self._requests = requests
        self._tokens = tokens
        self._vocab_size = vocab_size
        self.adapters = adapters
        self.extensions = extensions
        self.prompts = PromptReader(tokenizer, images)

    def check_form(self, parameters: GenerateParameters, stream: bool) -> int:
        """The rules that come before admission: what the form of the answer forbids. Returns `best_of`, at least 1."""
        best_of = parameters.best_of
        if stream:
            require(best_of in (None, 1), "`best_of` != 1 is not supported when streaming tokens")
            require(
                not parameters.decoder_input_details, "`decoder_input_details` is not supported when streaming tokens"
            )
            return 1
        limit = self._requests.max_best_of
        require((best_of or 1) == 1 or limit > 1, "`best_of` != 1 is not allowed for this endpoint")
        require((best_of or 1) <= limit, f"`best_of` must be > 0 and <= {limit}. Given: {best_of}")
        return best_of or 1

    def check_batch(self, prompts: int, choices: int) -> None:
        """The rules of requests for several answers: to several prompts, and to each of them."""
        limits = self._requests
        require(
            prompts <= limits.max_client_batch_size,
            f"`prompt` may have up to {limits.max_client_batch_size} texts (--max-client-batch-size). Given: {prompts}",
        )
        require(
            1 <= choices <= limits.max_best_of,
            f"`n` must be > 0 and <= {limits.max_best_of} (--max-best-of). Given: {choices}",
        )

    async def validate(
        self,
        request: GenerateRequest,
        add_special_tokens: bool = True,
        model: str | None = None,
        image_urls: Sequence[str] | None = None,
    ) -> ValidRequest:
        """Check everything else. Raises InvalidInput with the first rule that is broken.

        add_special_tokens: whether the tokenizer puts them around the prompt, which does not have them yet.
        model: the adapter that the request names as its model, if any.
        image_urls: as for `PromptReader.read`.
        """
        parameters = request.parameters
        check_values(parameters)
        check_extensions(parameters, self.extensions)
        self._check_counts(parameters)
        adapter = await self._adapter(request, model)
        require(request.inputs != "" or request.input_ids is not None, "`inputs` cannot be empty")
        truncate, limit = parameters.truncate, self._tokens.max_input_tokens
        require(
            truncate is None or 0 < truncate <= limit,
            f"`truncate` must be strictly positive and less than {limit}. Given: {truncate}",
        )
        text, read = await self._prompt(request, truncate or 0, add_special_tokens, image_urls)
        valid = ValidRequest(
            inputs=text,
            input_ids=read.ids,
            chunks=read.chunks,
            as_ids=request.input_ids is not None or ("prompt_ids" in self.extensions and not read.chunks),
            truncate=truncate or limit,
            sampling=sampling(parameters),
            max_new_tokens=0,
            stop_sequences=parameters.stop_sequences,
            stop_token_ids=tuple(parameters.stop_token_ids or ()),
            ignore_eos=bool(parameters.ignore_eos),
            min_new_tokens=parameters.min_new_tokens or 0,
            prefill_logprobs=bool(parameters.decoder_input_details),
            top_n_tokens=parameters.top_n_tokens or 0,
            add_special_tokens=add_special_tokens,
            adapter_id=adapter,
            priority=parameters.priority or 0,
            timeout=parameters.timeout,
        )
        return await self._with_grammar(self._fitting(valid, parameters.max_new_tokens), parameters.grammar)

    async def _with_grammar(self, request: ValidRequest, grammar: AnyGrammar | None) -> ValidRequest:
        if grammar is None:
            return request
        require(self._requests.grammars, "grammar is not supported")
        if isinstance(grammar, EbnfGrammar):
            require_known("ebnf", "grammar", self.extensions)
        found = await valid_grammar(grammar, self._grammars)
        return replace(request, sampling=replace(request.sampling, grammar=found))

    async def _prompt(
        self, request: GenerateRequest, truncate: int, add_special_tokens: bool, image_urls: Sequence[str] | None
    ) -> tuple[str, ReadPrompt]:
        """The prompt as text and as ids, whichever it was given as."""
        if request.input_ids is None:
            read = await self.prompts.read(request.inputs, truncate, add_special_tokens, image_urls)
            self._check_known("inputs", read.ids)
            return request.inputs, read
        require_known("prompt_ids", "input_ids", self.extensions)
        require(request.inputs == "", '`inputs` must be "" where `input_ids` are given')
        require(request.input_ids != [], "`input_ids` cannot be empty")
        ids = tuple(request.input_ids[-truncate:])
        self._check_known("input_ids", ids)
        return await self._decode(ids), ReadPrompt(ids)

    async def _decode(self, ids: tuple[int, ...]) -> str:
        try:
            return await self._tokenizer.decode(ids, skip_special_tokens=False)
        except Exception as error:  # tokenizers raise what they like
            raise InvalidInput(f"tokenizer error {excerpt(str(error))}") from error

    def _check_known(self, name: str, ids: Collection[int]) -> None:
        largest, size = max(ids, default=0), self._vocab_size
        require(
            size is None or largest < size,
            f"`{name}` has a token that the model does not know: id {largest}, expected less than {size}; leave it out",
        )

    def _fitting(self, request: ValidRequest, wanted: int | None) -> ValidRequest:
        """The request with what it may generate, by the rules of length; without a wish all there is room for.

        As with text-generation-inference 3, the answer to a longer wish ends where the room does.
        """
        length, limits = len(request.input_ids), self._tokens
        room = max(limits.max_total_tokens - length, 0)
        least = min(room if wanted is None else wanted, LEAST_ROOM)
        require(
            length + least <= limits.max_total_tokens,
            f"`inputs` tokens + `max_new_tokens` must be <= {limits.max_total_tokens}. "
            f"Given: {length} `inputs` tokens and {least} `max_new_tokens`",
        )
        require(
            length <= limits.max_input_tokens,
            f"`inputs` must have less than {limits.max_input_tokens} tokens. Given: {length}",
        )
        fitting = room if wanted is None else min(wanted, room)
        require(
            request.min_new_tokens <= fitting,
            f"`min_new_tokens` must be <= `max_new_tokens`, here {fitting}. Given: {request.min_new_tokens}",
        )
        return replace(request, max_new_tokens=fitting)

    async def _adapter(self, request: GenerateRequest, model: str | None) -> str | None:
        """The adapter that a request names, wherever it may; None for the model itself."""
        found = {model} if model else set()
        for place in (request.parameters, request):
            for name, value in (("adapter_id", place.adapter_id), ("lora_id", place.lora_id)):
                if value is None or value in _BASE_MODEL:
                    continue
                known, served = await self.adapters.find(value), ", ".join(self.adapters.names)
                must = f"one of {served}" if served else "left out: no adapters are served"
                require(known, f"`{name}` must be {must}. Given: {excerpt(value)}")
                found.add(value)
        require(len(found) <= 1, f"a request has one adapter. Given: {', '.join(sorted(found))}")
        return found.pop() if found else None

    def _check_counts(self, parameters: GenerateParameters) -> None:
        stops, limits = len(parameters.stop_sequences), self._requests
        self._check_known("logit_bias", parameters.logit_bias or ())
        self._check_known("stop_token_ids", parameters.stop_token_ids or ())
        require(parameters.max_new_tokens != 0, "`max_new_tokens` must be strictly positive")
        require(
            stops <= limits.max_stop_sequences,
            f"`stop` supports up to {limits.max_stop_sequences} stop sequences. Given: {stops}",
        )
        require(parameters.seed is None or (parameters.best_of or 1) == 1, "`seed` must not be set when `best_of` > 1")
        top_n = parameters.top_n_tokens or 0
        require(
            top_n <= limits.max_top_n_tokens,
            f"`top_n_tokens` must be >= 0 and <= {limits.max_top_n_tokens}. Given: {top_n}",
        )
