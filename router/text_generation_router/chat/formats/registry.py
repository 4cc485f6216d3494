"""Which formats there are, by the names that vLLM has for them, and which one a model writes, by its chat template.

The only module that names formats. Knows nothing of how they are read.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from text_generation_router.chat.formats import (
    bare_json,
    deepseek,
    dialects,
    gemma,
    glm,
    harmony,
    kimi,
    llama,
    marked_json,
    mistral,
    pythonic,
)
from text_generation_router.chat.formats.calls import Calls, NewId, call_id, short_id
from text_generation_router.chat.formats.reasoning import Marks
from text_generation_router.chat.formats.source import Source, Steps
from text_generation_router.chat.formats.tagged import Tags, tagged_calls


@dataclass(frozen=True, slots=True)
class ToolFormat:
    """How a model writes calls.

    read: reads an answer, without its reasoning. signs: what templates of such models say, all of it, one of these.
    marks: special tokens that it is written with. always: whether it is read also where no tool may be called.
    """

    read: Callable[[Source, Calls], Steps[None]]
    signs: tuple[tuple[str, ...], ...] = ()
    marks: frozenset[str] = frozenset()
    always: bool = False
    new_id: NewId = call_id


FORCED = ToolFormat(bare_json.bare_json)
"""How calls are written where a grammar forces them."""


def _tagged(tags: Tags, *signs: str) -> ToolFormat:
    return ToolFormat(partial(tagged_calls, tags), (signs,), tags.special)


def _gemma(marks: gemma.Marks) -> ToolFormat:
    return ToolFormat(partial(gemma.gemma, marks), ((marks.begin,),), marks.special)


def _marked(marks: marked_json.Marks, *signs: str) -> ToolFormat:
    return ToolFormat(partial(marked_json.marked_json, marks), tuple((sign,) for sign in signs), marks.special)


_DSML = _tagged(dialects.DSML, "｜DSML｜")
_DEEPSEEK = ToolFormat(deepseek.deepseek, ((deepseek.BEGIN,),), deepseek.MARKS)
_GLM = ToolFormat(glm.glm, ((glm.KEY,),), glm.MARKS)
_QWEN_CODER = _tagged(dialects.QWEN_CODER, "<tool_call>", "<function=")
_LLAMA_JSON = ToolFormat(
    llama.llama, (("<|start_header_id|>", '"parameters"'), ("<|header_start|>", '"parameters"')), llama.MARKS
)
_PYTHONIC = ToolFormat(pythonic.pythonic, (("<|tool_call_start|>",),), pythonic.MARKS)
_PHI = _marked(marked_json.PHI, "<|tool_call|>", "<|/tool|>")
_HERMES = _marked(marked_json.HERMES, "<tool_call>")

TOOL_FORMATS: Mapping[str, ToolFormat] = {
    "openai": ToolFormat(harmony.harmony, ((harmony.CHANNEL, harmony.MESSAGE),), harmony.MARKS, always=True),
    "deepseek_v4": _DSML,
    "deepseek_v32": _DSML,
    "deepseek_v31": _DEEPSEEK,
    "deepseek_v3": _DEEPSEEK,
    "kimi_k2": ToolFormat(kimi.kimi, ((kimi.BEGIN,),), kimi.MARKS),
    "minimax_m2": _tagged(dialects.MINIMAX, "<minimax:tool_call>"),
    "seed_oss": _tagged(dialects.SEED_OSS, "<seed:tool_call>"),
    "glm45": _GLM,
    "glm47": _GLM,
    "qwen3_coder": _QWEN_CODER,
    "qwen3_xml": _QWEN_CODER,
    "gemma4": _gemma(gemma.GEMMA_4),
    "functiongemma": _gemma(gemma.FUNCTION_GEMMA),
    "mistral": ToolFormat(mistral.mistral, ((mistral.BEGIN,),), mistral.MARKS, new_id=short_id),
    "phi4_mini_json": _PHI,
    "granite": _PHI,
    "pythonic": _PYTHONIC,
    "llama4_pythonic": _PYTHONIC,
    "lfm2": _PYTHONIC,
    "hermes": _HERMES,
    "granite4": _HERMES,
    "nemotron_json": _marked(marked_json.NEMOTRON, "<TOOLCALL>"),
    "cohere_command3": _marked(marked_json.COHERE, "<|START_ACTION|>"),
    "llama3_json": _LLAMA_JSON,
    "llama4_json": _LLAMA_JSON,
    "json": FORCED,
}
"""By name; the first whose signs a template has is the model's, and the last one where none is."""

_THINK = Marks("<think>", "</think>")
_THINKERS = ("deepseek_v3", "qwen3", "glm45", "glm47", "kimi_k2", "minimax_m2", "nemotron_v3", "olmo3")

REASONING: Mapping[str, Marks | None] = {
    "deepseek_r1": _THINK,
    **dict.fromkeys(_THINKERS, _THINK),
    "mistral": Marks("[THINK]", "[/THINK]"),
    "gemma4": Marks("<|channel>thought\n", "<channel|>", frozenset({"<|channel>", "<channel|>"})),
    "seed_oss": Marks("<seed:think>", "</seed:think>"),
    "cohere_command3": Marks("<|START_THINKING|>", "<|END_THINKING|>"),
    "openai_gptoss": None,  # its calls and its reasoning are of one format
    "none": None,
}
"""By name; the first whose end a template has is the model's."""


SINGLE = "only supports single tool-calls"
"""What templates say that refuse a conversation with several calls in an answer."""


def tool_format(template: str) -> ToolFormat:
    """How a model with this chat template writes calls."""
    signs = ((known, signs) for known in TOOL_FORMATS.values() for signs in known.signs)
    return next((known for known, all_of in signs if all(sign in template for sign in all_of)), FORCED)


def reasoning_marks(template: str) -> Marks | None:
    """Between which marks a model with this chat template reasons, if it does."""
    return next((marks for marks in REASONING.values() if marks is not None and marks.end in template), None)
