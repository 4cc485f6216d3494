"""Reads the results of steps that have been launched: tokens and texts of the sequences, and what others may share now.

Knows neither batches nor what is launched next.
"""

from text_generation_server.engine.finish import finish_tokens
from text_generation_server.engine.guessing import GuessPace
from text_generation_server.engine.launched_step import LaunchedStep
from text_generation_server.engine.pool import SequencePool
from text_generation_server.engine.types import Generation
from text_generation_server.tokenization.adapter import Tokenizer


class StepCollector:
    """pace: is told what came of guesses."""

    def __init__(self, tokenizer: Tokenizer, pace: GuessPace) -> None:
        self._tokenizer = tokenizer
        self._pace = pace

    def collect(self, step: LaunchedStep, pool: SequencePool) -> list[Generation]:
        """One step's results; rows that left since its launch ran for nothing. Sequences that end are released.

        Raises what the step raised.
        """
        output = step.output.result()
        pool.tags.settle(step.writes)
        for features in step.features:
            features.ready = True
        for sequence, scores in zip(step.scored, output.prompt_scores, strict=True):
            sequence.prompt_logprobs.extend(scores.logprobs)
            sequence.prompt_top.extend(scores.top)
        generations = []
        end = 0
        for sequence, drafted in zip(step.choosing, step.drafted, strict=True):
            start, end = end, end + drafted + 1
            if sequence.released:
                continue
            stand = 1
            if sequence.drafts is not None:
                stand = sequence.verify(sequence.drafts, output.sampled.ids[start:end])
                self._pace.count(drafted, stand - 1)
            generation = finish_tokens(sequence, output.sampled, range(start, start + stand), self._tokenizer)
            generations.append(generation)
            if generation.finished:
                pool.release(sequence)
        return generations
