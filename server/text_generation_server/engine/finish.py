"""Turns a chosen token into a `Generation`: text, stop check, prompt tokens, the whole text at the end. Host only."""

from text_generation_server.engine.sequence import Sequence
from text_generation_server.engine.types import FinishReason, GeneratedText, Generation, TokenList
from text_generation_server.tokenization.adapter import Tokenizer


def finish_token(
    sequence: Sequence, token_id: int, logprob: float, top: list[tuple[int, float]], tokenizer: Tokenizer
) -> Generation:
    """Append a collected token to its sequence and say what it means to the caller."""
    first = not sequence.output_ids
    sequence.output_ids.append(token_id)
    text = sequence.text.append(token_id)
    reason = sequence.stop.accept(token_id, text)
    return Generation(
        request_id=sequence.request.id,
        tokens=TokenList([token_id], [logprob], [text], [token_id in tokenizer.special_ids]),
        prefill_tokens=_prompt_tokens(sequence, tokenizer) if first and sequence.request.prefill_logprobs else None,
        top_tokens=(_alternatives(top, tokenizer),) if sequence.request.top_n_tokens else (),
        finished=None if reason is None else _whole_text(sequence, reason),
    )


def _prompt_tokens(sequence: Sequence, tokenizer: Tokenizer) -> TokenList:
    ids = list(sequence.request.prompt_ids)
    return TokenList(ids, sequence.prompt_logprobs, [tokenizer.token_text(i) for i in ids], [])


def _alternatives(top: list[tuple[int, float]], tokenizer: Tokenizer) -> TokenList:
    ids = [token_id for token_id, _ in top]
    return TokenList(
        ids, [p for _, p in top], [tokenizer.token_text(i) for i in ids], [i in tokenizer.special_ids for i in ids]
    )


def _whole_text(sequence: Sequence, reason: FinishReason) -> GeneratedText:
    sampling = sequence.request.sampling
    return GeneratedText(
        text=sequence.text.generated_text(),
        generated_tokens=len(sequence.output_ids),
        finish_reason=reason,
        seed=sampling.seed if sampling.samples else None,
    )
