"""The formats that are elements of names and parameters: which tags each has. Sources: their chat templates."""

from text_generation_router.chat.formats.tagged import Tags

QWEN_CODER = Tags(
    call="<function=",
    end="</function>",
    parameter="<parameter=",
    parameter_end="</parameter>",
    begins=("<tool_call>",),
    ends=("</tool_call>",),
    special=frozenset({"<tool_call>", "</tool_call>"}),
    lines=True,
)
"""Qwen3-Coder's and Qwen 3.5's."""

SEED_OSS = Tags(
    call="<function=",
    end="</function>",
    parameter="<parameter=",
    parameter_end="</parameter>",
    begins=("<seed:tool_call>",),
    ends=("</seed:tool_call>",),
    special=frozenset({"<seed:tool_call>", "</seed:tool_call>"}),
)
"""ByteDance's Seed-OSS."""

MINIMAX = Tags(
    call='<invoke name="',
    end="</invoke>",
    parameter='<parameter name="',
    parameter_end="</parameter>",
    name_end='">',
    key_end='">',
    begins=("<minimax:tool_call>",),
    ends=("</minimax:tool_call>",),
    special=frozenset({"<minimax:tool_call>", "</minimax:tool_call>"}),
)
"""MiniMax M2's."""

_DSML = "｜DSML｜"

DSML = Tags(
    call=f'<{_DSML}invoke name="',
    end=f"</{_DSML}invoke>",
    parameter=f'<{_DSML}parameter name="',
    parameter_end=f"</{_DSML}parameter>",
    name_end='">',
    key_end='"',
    begins=(f"<{_DSML}function_calls>", f"<{_DSML}tool_calls>"),
    ends=(f"</{_DSML}function_calls>", f"</{_DSML}tool_calls>"),
    special=frozenset({_DSML}),
    string={'string="true"': True, 'string="false"': False},
)
"""DeepSeek V3.2's and V4's."""
