"""Decides what a step computes for which sequences: sequences in, chunks and a `StepPlan` out, nothing else changed.

Host only, no tensors.
"""

from dataclasses import dataclass

from text_generation_server.engine.plan import Admission, StepPlan
from text_generation_server.engine.sequence import Sequence


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A plan, the sequences behind its choosing and scored rows."""

    plan: StepPlan
    choosing: list[Sequence]
    scored: list[Sequence]


def prefill_chunks(sequences: list[Sequence], max_prefill_tokens: int) -> list[int]:
    """How many tokens each sequence computes next: one and its guesses, or a chunk of its prompt.

    A step has at most `max_prefill_tokens`, but at least one a sequence. Those that came last are served first
    (docs/protocol.md#steps).
    """
    budget = max_prefill_tokens - (len(sequences) - 1)
    chunks = []
    for sequence in reversed(sequences):
        rest = sequence.remaining_prompt
        chunks.append(max(min(rest, budget), 1) if rest else 1 + len(sequence.draft))
        budget -= chunks[-1] if rest else 0
    return chunks[::-1]


def plan_step(sequences: list[Sequence]) -> PlannedStep:
    """Plan each sequence's next `step_tokens` tokens."""
    query_lens, seq_lens, prompts = [], [], []
    admissions, chooses, scored = [], [], []
    for index, sequence in enumerate(sequences):
        start, tokens, prompt = sequence.computed, sequence.step_tokens, sequence.request.prompt_ids
        if not sequence.admitted:
            admissions.append(Admission(sequence.row, sequence.slots, sequence.place))
        prompts.append(prompt[start : start + tokens] if start < len(prompt) else sequence.verified_input)
        query_lens.append(tokens)
        seq_lens.append(start + tokens)
        if sequence.request.prefill_logprobs and (score := min(start + tokens, len(prompt) - 1) - start) > 0:
            scored.append((index, score))
        if start + tokens >= len(prompt):
            chooses.append(index)
    plan = StepPlan(
        rows=tuple(s.row for s in sequences),
        query_lens=tuple(query_lens),
        seq_lens=tuple(seq_lens),
        prompts=tuple(prompts),
        admissions=tuple(admissions),
        chooses=tuple(chooses),
        drafted=tuple(len(sequences[i].draft) for i in chooses),
        scored=tuple(scored),
        adapted=any(s.place for s in sequences),
    )
    return PlannedStep(plan, [sequences[i] for i in chooses], [sequences[i] for i, _ in scored])
