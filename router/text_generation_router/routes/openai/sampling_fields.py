"""Fields of OpenAI's bodies that say how tokens are chosen, in OpenAI's and vLLM's words. Knows no prompts.

Source: OpenAI's API reference; vLLM's extra parameters of the same routes.
"""

from typing import Annotated, Any

from pydantic import Field

from text_generation_router.schemas import Body, Count, Float, TokenIds, TopK


class SamplingFields(Body):
    """What chats and completions share."""

    temperature: Float | None = None
    top_p: Float | None = None
    top_k: TopK | None = None
    min_p: Float | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**64)] | None = None
    frequency_penalty: Float | None = None
    presence_penalty: Float | None = None
    repetition_penalty: Float | None = None
    logit_bias: dict[Count, Float] | None = None
    stop: list[str] | str | None = None
    stop_token_ids: TokenIds | None = None
    ignore_eos: bool | None = None
    min_tokens: Count | None = None

    def sampling(self) -> dict[str, Any]:
        """The same as fields of the native `GenerateParameters`."""
        greedy = self.temperature == 0
        warpers = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k, "min_p": self.min_p}
        if self.top_k in (-1, 0):  # vLLM's words for none
            del warpers["top_k"]
        return {
            # Greedy decoding has nothing to cut; on the wire these would ask for a draw.
            **({} if greedy else warpers),
            "do_sample": not greedy,
            "seed": None if self.seed is None else self.seed % 2**64,
            "count_penalty": self.frequency_penalty,
            "presence_penalty": self.presence_penalty,
            "repetition_penalty": self.repetition_penalty,
            "logit_bias": self.logit_bias,
            "stop": self.stop,
            "stop_token_ids": self.stop_token_ids,
            "ignore_eos": self.ignore_eos,
            "min_new_tokens": self.min_tokens,
        }
