"""A step that has been launched: which sequences it runs and where its results will be."""

from dataclasses import dataclass

from text_generation_server.cache.places import HeldFeatures
from text_generation_server.cache.tags import PromptWrites
from text_generation_server.device.stream import Pending
from text_generation_server.engine.scoring import PromptScores
from text_generation_server.engine.sequence import Sequence
from text_generation_server.sampling.sampler import HostSampled


@dataclass(frozen=True, slots=True)
class StepOutput:
    """One step's results on the host.

    sampled: of the rows that chose a token, in the plan's order.
    prompt_scores: of each scored row, in the plan's order.
    forward_ns: how long the device worked on the step.
    """

    sampled: HostSampled
    prompt_scores: tuple[PromptScores, ...]
    forward_ns: int


@dataclass(frozen=True, slots=True)
class LaunchedStep:
    """`choosing` and `scored` name the sequences behind the rows of the output, in its order.

    writes: prompt tokens that others can share once the step has succeeded.
    drafted: guesses of each choosing sequence; it has one more row of the output.
    has_prompts: whether it computes any of a prompt.
    features: that it makes, and others can read once it has succeeded.
    """

    sequences: list[Sequence]
    writes: PromptWrites
    choosing: list[Sequence]
    drafted: tuple[int, ...]
    scored: list[Sequence]
    output: Pending[StepOutput]
    has_prompts: bool
    features: list[HeldFeatures]
