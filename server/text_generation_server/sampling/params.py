"""How tokens are chosen, as a request and an operator say it. Plain values, no tensors."""

from dataclasses import dataclass

from text_generation_server.grammar.grammar_type import GrammarType


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. The defaults are neutral: greedy, nothing penalised.

    logit_bias: distinct tokens and what is added to their scores. ends: the tokens that end the answer, which are not
    to be among its first `least`.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    typical_p: float = 1.0
    do_sample: bool = False
    seed: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    watermark: bool = False
    grammar: str = ""
    grammar_type: GrammarType = GrammarType.NONE
    min_p: float = 0.0
    presence_penalty: float = 0.0
    count_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    least: int = 0
    ends: tuple[int, ...] = ()

    @property
    def samples(self) -> bool:
        """Whether tokens are drawn rather than taken greedily (docs/protocol.md#choosing-tokens)."""
        warped = self.temperature != 1.0 or self.top_k != 0 or self.top_p < 1.0 or self.typical_p < 1.0
        return self.do_sample or warped or self.min_p > 0.0

    @property
    def depends_on_last_token(self) -> bool:
        """Whether a choice takes more from the token before it than the logits do."""
        return self.penalises or self.penalises_answer or self.watermark or bool(self.grammar)

    @property
    def penalises(self) -> bool:
        """Whether choosing a token needs the counts of the tokens before it, the prompt's included."""
        return self.repetition_penalty != 1.0 or self.frequency_penalty != 0.0

    @property
    def penalises_answer(self) -> bool:
        """Whether choosing a token needs the counts of the tokens generated before it."""
        return self.presence_penalty != 0.0 or self.count_penalty != 0.0


@dataclass(frozen=True, slots=True)
class WatermarkParams:
    """How watermarks are made (arXiv 2301.10226): the share of green tokens, and what is added to their logits."""

    gamma: float = 0.5
    delta: float = 2.0
