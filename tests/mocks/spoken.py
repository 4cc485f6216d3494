"""What models write, by format: answers with calls, whole and broken, and what they mean. Written for these tests."""

from dataclasses import dataclass, field
from typing import Any

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
UNIT = {"enum": ["K", 0]}
SCHEMAS: dict[str, dict[str, Any]] = {
    "weather": {
        "type": "object",
        "properties": {"city": TEXT, "days": NUMBER, "unit": {"enum": ["K", 0]}},
        "required": ["city"],
    },
    "write": {"type": "object", "properties": {"path": TEXT, "text": TEXT, "tags": {"type": "array"}}},
    "now": {"type": "object", "properties": {}},
}
TOOLS = [{"type": "function", "function": {"name": name, "parameters": schema}} for name, schema in SCHEMAS.items()]

ZURICH = ("weather", {"city": "Zürich", "days": 2})
BERN = ("weather", {"city": "Bern"})
NOW = ("now", {})
CODE = 'if a < b and c["}"]:\n\treturn "</tool_call>" # {[\\'
WRITE = ("write", {"path": "a.py", "text": CODE, "tags": ["x", 'y"', "{"]})


@dataclass(frozen=True)
class Spoken:
    """An answer. calls: names and arguments. content None: all of the text."""

    text: str
    calls: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    content: str | None = ""
    reasoning: str = ""
    opened: bool = False
    parallel: bool = True


def _hermes(*objects: str) -> str:
    return "\n".join(f"<tool_call>\n{one}\n</tool_call>" for one in objects)


_ZURICH = '{"name": "weather", "arguments": {"city": "Zürich", "days": 2}}'
_BERN = '{"name": "weather", "arguments": {"city": "Bern"}}'
_NOW = '{"name": "now", "arguments": {}}'
_LLAMA = _ZURICH.replace("arguments", "parameters")
_CODE = r'"if a < b and c[\"}\"]:\n\treturn \"</tool_call>\" # {[\\"'
_RAW = '"if a < b and c[\\"}\\"]:\n\treturn \\"</tool_call>\\" # {[\\\\"'
_WRITE = f'{{"name": "write", "arguments": {{"path": "a.py", "text": {_CODE}, "tags": ["x", "y\\"", "{{"]}}}}'
_WRITE_RAW = _WRITE.replace(_CODE, _RAW)

_CITY = '{"name": "weather", "arguments": {city: 1}}'

_DS = {key: f"<｜tool▁{name}｜>" for key, name in (("all", "calls▁begin"), ("begin", "call▁begin"), ("sep", "sep"))}
_DS |= {"end": "<｜tool▁call▁end｜>", "all_end": "<｜tool▁calls▁end｜>"}


def _v3(name: str, arguments: str) -> str:
    return f"{_DS['begin']}function{_DS['sep']}{name}\n```json\n{arguments}\n```{_DS['end']}"


def _v31(name: str, arguments: str) -> str:
    return f"{_DS['begin']}{name}{_DS['sep']}{arguments}{_DS['end']}"


def _xml(name: str, *parameters: tuple[str, str]) -> str:
    inner = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters)
    return f"<tool_call>\n<function={name}>\n{inner}</function>\n</tool_call>"


def _glm(name: str, *parameters: tuple[str, str]) -> str:
    inner = "".join(f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in parameters)
    return f"<tool_call>{name}\n{inner}</tool_call>"


def _dsml(name: str, *parameters: tuple[str, str, str]) -> str:
    written = '<｜DSML｜parameter name="{}" string="{}">{}</｜DSML｜parameter>\n'
    inner = "".join(written.format(*parameter) for parameter in parameters)
    return f'<｜DSML｜invoke name="{name}">\n{inner}</｜DSML｜invoke>\n'


def _minimax(name: str, *parameters: tuple[str, str]) -> str:
    inner = "".join(f'<parameter name="{key}">{value}</parameter>\n' for key, value in parameters)
    return f'<invoke name="{name}">\n{inner}</invoke>\n'


def _gemma4(name: str, arguments: str) -> str:
    return f"<|tool_call>call:{name}{{{arguments}}}<tool_call|>"


def _function_gemma(name: str, arguments: str) -> str:
    return f"<start_function_call>call:{name}{{{arguments}}}<end_function_call>"


def _kimi(name: str, index: int, arguments: str) -> str:
    return f"<|tool_call_begin|>functions.{name}:{index}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"


_ARGUMENTS = '{"city": "Zürich", "days": 2}'
_TAGS = '["x", "y\\"", "{"]'
_TO_PYTHON = "<|channel|>commentary to=python code<|message|>"
_TO_WEATHER = "<|channel|>commentary to=functions.weather <|constrain|>json<|message|>"

SPOKEN: dict[str, list[Spoken]] = {
    "hermes": [
        Spoken("Just text, with <b> and <tool_ in it.\n", content=None),
        Spoken(_hermes(_ZURICH), [ZURICH]),
        Spoken("I look.\n\n" + _hermes(_ZURICH, _NOW, _WRITE), [ZURICH, NOW, WRITE], content="I look."),
        Spoken(_hermes(_ZURICH, _NOW), [ZURICH], parallel=False),
        Spoken(_hermes(_WRITE_RAW) + "\n\nDone.\n", [WRITE], content="Done.\n"),
        Spoken('<tool_call>{"arguments":{"city":"Bern"},"name":"weather"}</tool_call>', [BERN]),
        Spoken('<tool_call>{"name":"weather","arguments":"{\\"city\\": \\"Bern\\"}"}</tool_call>', [BERN]),
        Spoken('<tool_call>{"name": "now"}</tool_call><tool_call>{"name":"now","arguments":null}', [NOW, NOW]),
        Spoken('<tool_call>\n{"name": "weather", "arguments": {"city": "Bern"}\n</tool_call>', [BERN]),
        Spoken('<tool_call>{"type":"function","function":' + _BERN + "}</tool_call>", [BERN]),
        Spoken(_hermes('{"name": "rain", "arguments": {}}') + " Hm.", content=None),
        Spoken(_hermes('{"name": "now", "arguments": {"a": }}'), content=None),
        Spoken(_hermes('{"name": "weather", "arguments": [1]}'), content=None),
        Spoken(_hermes('{"name": "weather", "speed": {}}'), content=None),
        Spoken("Well. " + _hermes(_ZURICH)[:-30], content=None),
        Spoken(_hermes(_NOW, _CITY), [NOW], content="<tool_call>\n" + _CITY + "\n</tool_call>"),
        Spoken("<think>\nRain?\n\n</think>\n\n" + _hermes(_ZURICH), [ZURICH], reasoning="Rain?"),
        Spoken("Rain, <b>?</think> Yes.", content="Yes.", reasoning="Rain, <b>?", opened=True),
        Spoken("\n<think>Cut of", reasoning="Cut of"),
        Spoken("I <think> so.", content=None),
    ],
    "qwen3_coder": [
        Spoken("I look.\n" + _xml("weather", ("city", "Zürich"), ("days", "2")), [ZURICH], content="I look."),
        Spoken(_xml("write", ("path", "a.py"), ("text", CODE), ("tags", _TAGS)) + "\n" + _xml("now"), [WRITE, NOW]),
        Spoken(_hermes(_ZURICH), [ZURICH]),
        Spoken(_xml("weather", ("city", "Zü\n\nrich\n")), [("weather", {"city": "Zü\n\nrich\n"})]),
        Spoken(_xml("weather", ("days", "two"), ("city", "5")), [("weather", {"days": "two", "city": "5"})]),
        Spoken(
            _xml("weather", ("unit", "0")) + _xml("weather", ("unit", "K")),
            [("weather", {"unit": u}) for u in (0, "K")],
        ),
        Spoken(_xml("write", ("tags", "None"), ("more", "True")), [("write", {"tags": None, "more": "True"})]),
        Spoken(_xml("rain", ("city", "Bern")), content=None),
        Spoken(_xml("weather", ("city", "Zürich"))[:-40], content=None),
    ],
    "seed_oss": [
        Spoken(
            "<seed:tool_call>\n<function=weather>\n<parameter=city>Zürich</parameter>\n<parameter=days>2</parameter>\n"
            "</function>\n</seed:tool_call>",
            [ZURICH],
        ),
    ],
    "minimax_m2": [
        Spoken(
            "<minimax:tool_call>\n"
            + _minimax("weather", ("city", "Zürich"), ("days", "2"))
            + _minimax("now")
            + "</minimax:tool_call>",
            [ZURICH, NOW],
        ),
    ],
    "deepseek_v32": [
        Spoken(
            "So:\n\n<｜DSML｜function_calls>\n"
            + _dsml("weather", ("city", "true", "Zürich"), ("days", "false", "2"))
            + _dsml("now")
            + "</｜DSML｜function_calls>",
            [ZURICH, NOW],
            content="So:",
        ),
    ],
    "glm45": [
        Spoken(_glm("weather", ("city", "Zürich"), ("days", "2")) + "\n" + _glm("now"), [ZURICH, NOW]),
        Spoken(_glm("weather", ("city", "Bern")).replace("\n", ""), [BERN]),
        Spoken("\n<think>Hm.</think>Ok.\n" + _glm("now"), [NOW], content="Ok.", reasoning="Hm."),
        Spoken(_glm("weather", ("city", "Bern"))[:-20], content=None),
    ],
    "llama3_json": [
        Spoken(_LLAMA, [ZURICH]),
        Spoken("<|python_tag|>" + _LLAMA + "; " + _NOW, [ZURICH, NOW]),
        Spoken('{"answer": {"name": "weather"}, "more": [1, 2]}', content=None),
        Spoken('<|python_tag|>weather.call(city="Bern")', content=None),
        Spoken('{"name": "weather"', content=None),
        Spoken("<|python_start|>I look.<|python_end|>" + _LLAMA, [ZURICH], content="I look."),
        Spoken("It has {" + _LLAMA, content=None),
    ],
    "mistral": [
        Spoken(f"[TOOL_CALLS] [{_ZURICH}, {_NOW}]", [ZURICH, NOW]),
        Spoken(f"[TOOL_CALLS]weather[ARGS]{_ARGUMENTS}[TOOL_CALLS]now[ARGS]{{}}", [ZURICH, NOW]),
        Spoken(f"Ok.[TOOL_CALLS]weather[CALL_ID]abcdefghi[ARGS]{_ARGUMENTS}", [ZURICH], content="Ok."),
        Spoken(f"[TOOL_CALLS]weather{_ARGUMENTS}", [ZURICH]),
        Spoken(f"[THINK]Rain? [1] [/THINK]Ok.[TOOL_CALLS]weather{_ARGUMENTS}", [ZURICH], "Ok.", "Rain? [1]"),
        Spoken(f"[TOOL_CALLS] [{_ZURICH}, {{}}]", [ZURICH], content=", {}]"),
        Spoken("[TOOL_CALLS]", content=None),
        Spoken("[TOOL_CALLS]weather[ARGS]", content=None),
    ],
    "phi4_mini_json": [
        Spoken(f"<|tool_call|>[{_ZURICH}, {_NOW}]<|/tool_call|>", [ZURICH, NOW]),
        Spoken(f"functools[{_ZURICH}]", [ZURICH]),
        Spoken("<|tool_call|>[]<|/tool_call|>", content=None),
    ],
    "nemotron_json": [
        Spoken(f"Ok.<TOOLCALL>[{_ZURICH}, {_NOW}]</TOOLCALL>", [ZURICH, NOW], content="Ok."),
    ],
    "cohere_command3": [
        Spoken(
            '<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "weather", "parameters": '
            + _ARGUMENTS
            + "}\n]<|END_ACTION|>",
            [ZURICH],
        ),
        Spoken("<|START_RESPONSE|>It rains.<|END_RESPONSE|>", content="It rains."),
    ],
    "deepseek_v3": [
        Spoken(_DS["all"] + _v3("weather", _ARGUMENTS) + "\n" + _v3("now", "{}") + _DS["all_end"], [ZURICH, NOW]),
        Spoken("<think>\nHm.</think>\n\nI look." + _DS["all"] + _v3("now", "{}"), [NOW], "I look.", "Hm."),
        Spoken(_DS["all"] + _v3("now", "{]"), content=None),
    ],
    "deepseek_v31": [
        Spoken("I look." + _DS["all"] + _v31("weather", _ARGUMENTS) + _v31("now", "{}"), [ZURICH, NOW], "I look."),
    ],
    "kimi_k2": [
        Spoken(
            "<|tool_calls_section_begin|>"
            + _kimi("weather", 0, _ARGUMENTS)
            + _kimi("now", 1, "{}")
            + "<|tool_calls_section_end|>",
            [ZURICH, NOW],
        ),
    ],
    "gemma4": [
        Spoken(_gemma4("weather", 'city:<|"|>Zürich<|"|>,days:2') + _gemma4("now", ""), [ZURICH, NOW]),
        Spoken(
            "<|channel>thought\nRain?\n<channel|>I write.\n"
            + _gemma4("write", f'path:~a.py~,text:~{CODE}~,tags:[~x~,~y"~,~{{~]'.replace("~", '<|"|>')),
            [WRITE],
            content="I write.",
            reasoning="Rain?",
        ),
        Spoken(
            _gemma4("write", "a:{b:true,c:{d:[1,2.5,[]]}},e:{},f:nothing"),
            [("write", {"a": {"b": True, "c": {"d": [1, 2.5, []]}}, "e": {}, "f": "nothing"})],
        ),
        Spoken(_gemma4("weather", 'city:<|"|>Zürich')[:-15], content=None),
    ],
    "functiongemma": [
        Spoken(_function_gemma("weather", "city:<escape>Zürich<escape>,days:2"), [ZURICH]),
    ],
    "pythonic": [
        Spoken('[weather(city="Zürich", days=2), now()]', [ZURICH, NOW]),
        Spoken("<|tool_call_start|>[weather(city='Zürich', days=2)]<|tool_call_end|>Ok.", [ZURICH], content="Ok."),
        Spoken(f"[write(path='a.py', text={CODE!r}, tags=['x', 'y\"', '{{'])]", [WRITE]),
        Spoken(
            '[write(tags=[true, {"a": null}], text=None)]', [("write", {"tags": [True, {"a": None}], "text": None})]
        ),
        Spoken("[1, 2]", content=None),
        Spoken("[weather(city=open('x'))]", content=None),
        Spoken("[weather(city='a'", content=None),
    ],
    "openai": [
        Spoken(
            "<|channel|>analysis<|message|>Rain? <b><|end|><|start|>assistant" + _TO_WEATHER + _ARGUMENTS + "<|call|>",
            [ZURICH],
            reasoning="Rain? <b>",
        ),
        Spoken("<|channel|>final<|message|>It rains.\n<|return|>", content="It rains.\n"),
        Spoken(
            "<|channel|>commentary<|message|>I look.<|end|><|start|>assistant to=functions.weather<|channel|>commentary"
            f" json<|message|>{_ARGUMENTS}<|call|>",
            [ZURICH],
            content="I look.",
        ),
        Spoken("It rains.", content=None),
        Spoken(_TO_PYTHON + "1 + 1<|call|>", content=_TO_PYTHON + "1 + 1"),
        Spoken("<|channel|>final", content=None),
    ],
    "json": [
        Spoken(f"[{_ZURICH}, {_WRITE}]", [ZURICH, WRITE]),
        Spoken(_BERN, [BERN]),
        Spoken(f"I look:\n```json\n{_BERN}\n```\nDone.\n```\na\n```", [BERN], content="I look:\nDone.\n```\na\n```"),
        Spoken('{"function": {"_name": "weather", "city": "Bern"}}', [BERN]),
        Spoken('{"city": "Bern"}', content=None),
        Spoken("[1, 2, 3]", content=None),
        Spoken("```json\n[]\n```", content=None),
    ],
}
