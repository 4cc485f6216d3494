"""Decides what a step computes for which sequences: sequences in, chunks and a `StepPlan` out, nothing else changed.

Host only, no tensors.
"""

from dataclasses import dataclass

from text_generation_server.cache.layout import Block
from text_generation_server.cache.places import HeldFeatures
from text_generation_server.engine.plan import Admission, StepPlan
from text_generation_server.engine.sequence import Sequence
from text_generation_server.models.step import ImageInput, SeenImages


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """A plan, the sequences behind its choosing and scored rows, and the features that it makes."""

    plan: StepPlan
    choosing: list[Sequence]
    scored: list[Sequence]
    features: list[HeldFeatures]


def prefill_chunks(sequences: list[Sequence], most_tokens: int) -> list[int]:
    """How many tokens each sequence computes next: one and its guesses, or a chunk of its prompt.

    A step has at most `most_tokens`, but at least one a sequence, and blocks are not cut. Who came first is served
    first.
    """
    budget = most_tokens - len(sequences)
    chunks = []
    for sequence in sequences:
        if sequence.remaining_prompt:
            chunks.append(sequence.uncut(1 + max(min(sequence.next_chunk - 1, budget), 0)))
            budget -= chunks[-1] - 1
        else:
            chunks.append(1 + len(sequence.draft))
    return chunks


def plan_step(sequences: list[Sequence]) -> PlannedStep:
    """Plan each sequence's next `step_tokens` tokens."""
    query_lens, seq_lens, prompts = [], [], []
    admissions, chooses, scored = [], [], []
    blocks: list[Block] = []
    images: dict[HeldFeatures, ImageInput] = {}
    seen: list[SeenImages] = []
    for index, sequence in enumerate(sequences):
        start, tokens, prompt = sequence.computed, sequence.step_tokens, sequence.request.prompt_ids
        if not sequence.admitted:
            source = sequence.source
            ids, slots = ((), ()) if source is None else (source.ids, source.slots)
            placed = tuple((image.positions[0], image.image.grid) for image in sequence.request.images)
            admissions.append(Admission(sequence.row, sequence.slots, sequence.place, ids, slots, placed))
            if sequence.shown is not None:
                images.update(sequence.shown.unread())
                seen += sequence.shown.seen_by(sequence.row)
        prompts.append(sequence.inputs[start : start + tokens] if start < len(prompt) else sequence.verified_input)
        if sequence.blocks and start < len(prompt):
            blocks += [Block(index, a, b) for a, b in sequence.blocks if a < start + tokens and b > start]
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
        images=tuple(images.values()),
        blocks=tuple(blocks),
        seen=tuple(seen),
    )
    return PlannedStep(plan, [sequences[i] for i in chooses], [sequences[i] for i, _ in scored], list(images))
