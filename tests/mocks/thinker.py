"""What a model with tools that thinks first may say, for APIs that tell it in their own shapes."""

from typing import Any

TEMPLATE = (
    "{{ tools | tojson if tools else '' }}{% if false %}</think><tool_call>{% endif %}"
    "{% for m in messages %}[{{ m.role }}]{{ m.reasoning_content }}{{ m.content }}"
    "{% for call in m.tool_calls or [] %}({{ call.function.name }} {{ call.function.arguments | tojson }}){% endfor %}"
    "{{ m.tool_call_id }}{% endfor %}{{ '[assistant]' if add_generation_prompt else '' }}"
)
"""Of a model whose calls and reasoning are found by it."""

SPECIAL = ["<tool_call>", "</tool_call>", "<|im_end|>"]
SAYS = [
    *("<think>", "\n", "Hm", ".", "\n", "</think>", "\n\n", "I ", "look.", "\n", "<tool_call>"),
    *('{"name": "weather", "argu', 'ments": {"ci', 'ty": "Bern"', "}}", "</tool_call>", "<|im_end|>"),
]
"""Reasoning `Hm.`, the text `I look.`, and a call of weather for Bern."""

SCHEMA: dict[str, Any] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}

SERVED: dict[str, Any] = {"template": TEMPLATE, "says": SAYS, "special": SPECIAL}
"""For `running_router`."""
