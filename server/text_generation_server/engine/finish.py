"""Turns chosen tokens into a `Generation`: text, stop check, prompt tokens, the whole text at the end. Host only."""

from text_generation_server.engine.sequence import Sequence
from text_generation_server.engine.types import (
    Failure,
    FinishReason,
    GeneratedText,
    Generation,
    RefusedRequest,
    TokenList,
)
from text_generation_server.errors import InvalidRequest
from text_generation_server.sampling.sampled import HostSampled
from text_generation_server.tokenization.adapter import Tokenizer


def finish_tokens(sequence: Sequence, chosen: HostSampled, rows: range, tokenizer: Tokenizer) -> Generation:
    """Append these of a step's tokens to their sequence, up to the one that ends it, and say what they mean."""
    if sequence.grammar is not None and sequence.grammar.failure is not None:
        return _failed(sequence, sequence.grammar.failure, chosen.ids[rows.start])
    first = not sequence.output_ids
    tokens, top_tokens, reason = TokenList([], [], [], []), [], None
    for row in rows:
        token_id = chosen.ids[row]
        sequence.output_ids.append(token_id)
        special = token_id in tokenizer.special_ids
        text = "" if token_id in sequence.stop.untold and not special else sequence.text.append(token_id)
        reason = _reason(sequence, token_id)
        if reason is not None:
            text += sequence.text.rest()
        tokens.append(token_id, chosen.logprobs[row], text, special)
        if sequence.request.top_n_tokens:
            top_tokens.append(_alternatives(chosen.top[row], tokenizer))
        if reason is not None:
            break
    scored = first and sequence.request.prefill_logprobs
    return Generation(
        request_id=sequence.request.id,
        tokens=tokens,
        prefill_tokens=_prompt_tokens(sequence, tokenizer) if scored else None,
        prefill_top_tokens=tuple(_alternatives(top, tokenizer) for top in sequence.prompt_top) if scored else (),
        top_tokens=tuple(top_tokens),
        finished=None if reason is None and not sequence.stop.stay_over else _end(sequence, reason),
    )


def _reason(sequence: Sequence, token_id: int) -> FinishReason | None:
    """Why the generation ends with this token, whose text has been made: ids come before texts."""
    reason = sequence.stop.accept(token_id)
    return FinishReason.STOP_SEQUENCE if reason is None and sequence.text.stopped else reason


def _failed(sequence: Sequence, failure: InvalidRequest, token_id: int) -> Generation:
    """The end of a request that failed alone while it ran."""
    return Generation(
        request_id=sequence.request.id,
        tokens=TokenList([token_id], [0.0], [""], [True]),
        top_tokens=(TokenList([], [], [], []),) if sequence.request.top_n_tokens else (),
        finished=Failure(str(failure), sequence.stop.generated + 1),
    )


def refusal(refused: RefusedRequest, tokenizer: Tokenizer) -> Generation:
    """The end of a request that was never started."""
    return Generation(
        request_id=refused.id,
        tokens=TokenList([min(tokenizer.eos_ids, default=0)], [0.0], [""], [True]),
        finished=Failure(refused.reason, 1),
    )


def _prompt_tokens(sequence: Sequence, tokenizer: Tokenizer) -> TokenList:
    ids = list(sequence.request.prompt_ids)
    return TokenList(ids, sequence.prompt_logprobs, [tokenizer.token_text(i) for i in ids], [])


def _alternatives(top: list[tuple[int, float]], tokenizer: Tokenizer) -> TokenList:
    ids = [token_id for token_id, _ in top]
    return TokenList(
        ids, [p for _, p in top], [tokenizer.token_text(i) for i in ids], [i in tokenizer.special_ids for i in ids]
    )


def _end(sequence: Sequence, reason: FinishReason | None) -> GeneratedText:
    """Without a reason it is the stay that ends, which looks like an end by length: there is no text to make yet."""
    return GeneratedText(
        text="" if reason is None else sequence.text.generated_text(),
        generated_tokens=sequence.stop.generated,
        finish_reason=FinishReason.LENGTH if reason is None else reason,
        seed=sequence.sampling.seed if sequence.samples else None,
    )
