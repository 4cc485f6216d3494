"""What the launcher understands of its children's lines, and how it writes its own."""

import io
import json

import pytest

from text_generation_launcher.console import Console
from text_generation_launcher.relay import parse_record
from text_generation_launcher.settings import LogLevel
from text_generation_launcher.startup import StartUp


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    def write(self, text: str) -> int:
        raise BrokenPipeError


def log_line(text: str = "hello\n", level: str = "INFO", **record: object) -> str:
    return json.dumps({"text": text, "record": {"level": {"name": level}, **record}})


@pytest.mark.parametrize(
    "line",
    ["", "plain", "3", "[]", "null", "{}", '{"text": "a"}', '{"text": "a", "record": {}}', log_line(level="LOUD")],
)
def test_lines_of_another_kind_are_no_records(line: str):
    assert parse_record(line) is None


@pytest.mark.parametrize(
    ("name", "level"), [("SUCCESS", LogLevel.INFO), ("WARNING", LogLevel.WARN), ("CRITICAL", LogLevel.ERROR)]
)
def test_levels(name: str, level: LogLevel):
    record = parse_record(log_line(level=name))
    assert record is not None and (record.level, record.text) == (level, "hello")


def test_the_message_is_preferred_unless_there_is_a_traceback():
    quiet = parse_record(log_line("12:00 INFO hello\n", message="hello", exception=None))
    loud = parse_record(log_line("hello\nTraceback\n", message="hello", exception={"type": "E"}))
    assert quiet is not None and quiet.text == "hello"
    assert loud is not None and loud.text == "hello\nTraceback"


def console(out: io.StringIO, *, json_lines: bool = False, level: LogLevel = LogLevel.INFO) -> Console:
    return Console(json_lines=json_lines, level=level, out=out, err=out)


def test_a_terminal_gets_a_bar_that_log_lines_do_not_disturb():
    out = Terminal()
    start_up = StartUp(console(out))
    for rank in range(2):
        start_up.stdout_of(f"shard-{rank}")(log_line(extra={"phase": "load", "done": 1 << 20, "total": 4 << 20}))
    start_up.stdout_of("shard-0")(log_line("a word"))
    start_up.loaded(2)
    bars = [text for text in out.getvalue().split("\r\x1b[K") if text.startswith("load [")]
    assert bars[-1] == "load [########........................] 2.0 MiB of 8.0 MiB"
    assert "a word\nload [" in out.getvalue() and out.getvalue().endswith("8.0 MiB of weights\n")


def test_what_is_counted_has_a_bar_of_its_own():
    out = Terminal()
    start_up = StartUp(console(out))
    start_up.stdout_of("shard-0")(log_line(extra={"phase": "load", "done": 4 << 20, "total": 4 << 20}))
    for rank in range(2):
        start_up.stdout_of(f"shard-{rank}")(log_line(extra={"phase": "record", "done": 2, "total": 8}))
    assert out.getvalue().endswith("record [########........................] 4 of 16 steps")


def test_a_file_gets_no_bar():
    out = io.StringIO()
    StartUp(console(out)).stdout_of("shard-0")(log_line(extra={"phase": "load", "done": 1, "total": 2}))
    assert out.getvalue() == ""


@pytest.mark.parametrize("extra", [{"phase": 3}, {"phase": "other"}, {"done": 1, "total": 2}])
def test_lines_that_report_on_no_phase_are_shown(extra: dict[str, object]):
    out = io.StringIO()
    StartUp(console(out)).stdout_of("shard-0")(log_line(extra=extra))
    assert "hello" in out.getvalue()


def test_what_a_child_adds_to_a_line_is_there_in_json():
    out = io.StringIO()
    line = log_line(extra={"phase": "loaded", "seconds": 1.5})
    StartUp(console(out, json_lines=True)).stdout_of("shard-0")(line)
    assert json.loads(out.getvalue())["fields"] == {"message": "hello", "phase": "loaded", "seconds": 1.5}


@pytest.mark.parametrize("json_lines", [True, False])
def test_a_routers_line_is_shown_as_it_is_or_as_text_with_its_request(json_lines: bool):
    out = io.StringIO()
    line = json.dumps({"level": "WARN", "message": "slow", "request_id": "n7", "target": "text_generation_router"})
    StartUp(console(out, json_lines=json_lines)).stdout_of_router(line)
    StartUp(console(out, json_lines=json_lines)).stdout_of_router("no JSON")
    assert out.getvalue() == f"{line}\n" if json_lines else out.getvalue().endswith(" WARN router: slow [n7]\n")


def test_a_routers_traceback_is_shown():
    out = io.StringIO()
    StartUp(console(out)).stdout_of_router('{"level": "ERROR", "message": "a", "exception": "Traceback\\n  b\\n"}')
    assert out.getvalue().endswith("ERROR router: a\nTraceback\n  b\n")


def test_lines_below_the_level_are_left_out_and_failures_never():
    out = io.StringIO()
    quiet = console(out, level=LogLevel.OFF)
    quiet.warn("unheard")
    quiet.failure("the end", ["its cause"])
    assert out.getvalue() == "its cause\nError: the end\n"


def test_failures_are_objects_too():
    out, err = io.StringIO(), io.StringIO()
    Console(json_lines=True, level=LogLevel.INFO, out=out, err=err).failure("the end", ["its cause"])
    line = json.loads(out.getvalue())
    assert line["level"] == "ERROR" and line["fields"] == {"message": "the end", "stderr": ["its cause"]}
    assert err.getvalue() == "Error: the end\n"


def test_a_reader_that_went_away_is_no_reason_to_end():
    gone = console(Gone())
    gone.warn("unheard")
    gone.failure("the end", [])
