"""What the routes serve from. Knows none of them."""

from dataclasses import dataclass
from typing import Any

from text_generation_router.backend import AdapterNames, Admission, Exposition, Health
from text_generation_router.chat.dialect import Dialect
from text_generation_router.chat.template import ChatTemplate
from text_generation_router.inference import Inference
from text_generation_router.metrics import Metrics
from text_generation_router.routes.naming import ModelNames
from text_generation_router.tokenizer import PromptTokenizer
from text_generation_router.validation import Validator


@dataclass(frozen=True, slots=True)
class Services:
    """The parts of the router that handlers call, and a few values they need.

    template: None if the model has no chat template. dialect: how it writes calls and reasoning.
    info: the answer of `/info`.
    full_text_by_default: whether `/` puts the prompt before the text.
    payload_limit: bytes. keep_alive_s: silence, in seconds, after which a stream gets a comment.
    """

    adapters: AdapterNames
    names: ModelNames
    health: Health
    validator: Validator
    inference: Inference
    tokenizer: PromptTokenizer
    template: ChatTemplate | None
    dialect: Dialect
    permits: Admission
    metrics: Metrics
    figures: Exposition
    info: dict[str, Any]
    full_text_by_default: bool
    compute_type: str
    payload_limit: int
    keep_alive_s: float
