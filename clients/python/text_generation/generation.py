"""The arguments of generation, shared by the sync and the async client. Knows no transport."""

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from text_generation.types import Grammar, Parameters, Request

AnswerT = TypeVar("AnswerT", covariant=True)
StreamT = TypeVar("StreamT", covariant=True)


class Generation(ABC, Generic[AnswerT, StreamT]):
    """Turns arguments into a request, and leaves it to the subclass to send it.

    do_sample: choose tokens at random by their probability, not the likeliest one.
    max_new_tokens: most tokens to generate.
    best_of: generate that many sequences and return the likeliest.
    repetition_penalty: 1.0 is none (CTRL, arXiv 1909.05858).
    frequency_penalty: subtracted for each time a token occurred already; 0.0 is none.
    return_full_text: put the prompt before the generated text.
    seed: of the random choices.
    stop_sequences: texts that end the generation; they stay in the answer.
    temperature: divides the logits.
    top_k, top_p: choose among the k likeliest tokens, among the likeliest that have probability p together.
    truncate: keep that many tokens of the prompt's end.
    typical_p: mass of locally typical sampling (arXiv 2202.00666).
    watermark: of arXiv 2301.10226.
    decoder_input_details: return the prompt's tokens with their log-probabilities.
    top_n_tokens: return that many of the likeliest tokens at each position.
    grammar: what the text must match.
    adapter_id, lora_id: the LoRA adapter to use, by either name.

    All methods raise the errors of text_generation.errors, and httpx.HTTPError where the server cannot be reached.
    """

    def generate(
        self,
        prompt: str,
        do_sample: bool = False,
        max_new_tokens: int = 20,
        best_of: int | None = None,
        repetition_penalty: float | None = None,
        frequency_penalty: float | None = None,
        return_full_text: bool = False,
        seed: int | None = None,
        stop_sequences: list[str] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        truncate: int | None = None,
        typical_p: float | None = None,
        watermark: bool = False,
        decoder_input_details: bool = False,
        top_n_tokens: int | None = None,
        grammar: Grammar | None = None,
        adapter_id: str | None = None,
        lora_id: str | None = None,
    ) -> AnswerT:
        """Generate the whole answer to a prompt; the arguments are those of the class."""
        parameters = Parameters(
            details=True,
            do_sample=do_sample,
            max_new_tokens=max_new_tokens,
            best_of=best_of,
            repetition_penalty=repetition_penalty,
            frequency_penalty=frequency_penalty,
            return_full_text=return_full_text,
            seed=seed,
            stop=stop_sequences or [],
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            truncate=truncate,
            typical_p=typical_p,
            watermark=watermark,
            decoder_input_details=decoder_input_details,
            top_n_tokens=top_n_tokens,
            grammar=grammar,
            adapter_id=adapter_id,
            lora_id=lora_id,
        )
        return self._answer(Request(inputs=prompt, parameters=parameters))

    def generate_stream(
        self,
        prompt: str,
        do_sample: bool = False,
        max_new_tokens: int = 20,
        repetition_penalty: float | None = None,
        frequency_penalty: float | None = None,
        return_full_text: bool = False,
        seed: int | None = None,
        stop_sequences: list[str] | None = None,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        truncate: int | None = None,
        typical_p: float | None = None,
        watermark: bool = False,
        top_n_tokens: int | None = None,
        grammar: Grammar | None = None,
        adapter_id: str | None = None,
        lora_id: str | None = None,
    ) -> StreamT:
        """Generate an answer token by token; the arguments are those of the class. Closing the stream ends it."""
        parameters = Parameters(
            details=True,
            do_sample=do_sample,
            max_new_tokens=max_new_tokens,
            repetition_penalty=repetition_penalty,
            frequency_penalty=frequency_penalty,
            return_full_text=return_full_text,
            seed=seed,
            stop=stop_sequences or [],
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            truncate=truncate,
            typical_p=typical_p,
            watermark=watermark,
            top_n_tokens=top_n_tokens,
            grammar=grammar,
            adapter_id=adapter_id,
            lora_id=lora_id,
        )
        return self._stream(Request(inputs=prompt, parameters=parameters, stream=True))

    @abstractmethod
    def _answer(self, request: Request) -> AnswerT:
        """Send the request and read the whole answer."""

    @abstractmethod
    def _stream(self, request: Request) -> StreamT:
        """Send the request and read the answer's events as they come."""
