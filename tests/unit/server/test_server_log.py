"""The shard's log: JSON lines that a launcher can read, plain text, levels by their launcher names."""

import json
import logging
import sys

import pytest
from loguru import logger

from text_generation_server import log
from text_generation_server.errors import InvalidSettings


@pytest.fixture(autouse=True)
def own_logging():
    """Both logging systems as they were, afterwards."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    logger.remove()
    logger.add(sys.stderr)


def said(capsys, **arguments) -> list[str]:
    """Lines printed for one debug, info and error message."""
    log.configure(**arguments)
    logger.debug("small")
    logger.info("loaded {} in {:.1f} s", "model", 1.25)
    logger.error("broken")
    return capsys.readouterr().out.splitlines()


def test_json_lines_have_what_launchers_read(capsys):
    lines = [json.loads(line) for line in said(capsys, level="INFO", json_output=True)]
    assert [(line["text"], line["record"]["level"]["name"]) for line in lines] == [
        ("loaded model in 1.2 s\n", "INFO"),
        ("broken\n", "ERROR"),
    ]
    record = lines[0]["record"]
    assert record["message"] == "loaded model in 1.2 s"
    assert {"time", "name", "module", "function", "line", "file", "process", "thread", "elapsed"} <= record.keys()
    assert record["extra"] == {"rank": 0}


def test_plain_text_is_for_people(capsys):
    info, error = said(capsys, level="INFO", json_output=False)
    assert info.endswith("INFO    loaded model in 1.2 s") and error.endswith("ERROR   broken")
    assert not info.startswith("{")


@pytest.mark.parametrize(
    ("level", "count"),
    [("TRACE", 3), ("DEBUG", 3), ("INFO", 2), ("info", 2), ("WARN", 1), ("WARNING", 1), ("ERROR", 1), ("OFF", 0)],
)
def test_levels(capsys, level, count):
    assert len(said(capsys, level=level, json_output=True)) == count


def test_unknown_levels_are_refused():
    with pytest.raises(InvalidSettings, match="--logger-level is 'LOUD', expected one of WARN"):
        log.configure("LOUD", json_output=False)


@pytest.mark.parametrize(("level", "count"), [("INFO", 1), ("DEBUG", 3)])
def test_followers_repeat_nothing_that_rank_0_says(capsys, level, count):
    assert len(said(capsys, level=level, json_output=True, rank=1)) == count


def test_followers_report_on_their_part_of_the_start(capsys):
    log.configure("INFO", json_output=True, rank=1)
    logger.bind(phase="load", done=1, total=2).info("loading")
    (line,) = capsys.readouterr().out.splitlines()
    assert json.loads(line)["record"]["extra"] == {"rank": 1, "phase": "load", "done": 1, "total": 2}


def test_followers_say_who_they_are(capsys):
    (line,) = said(capsys, level="INFO", json_output=False, rank=3)
    assert line.endswith("rank 3: broken")


@pytest.mark.parametrize("text", ["x" * 100_000, "ü" * 50_000, '"\x00' * 30_000], ids=["ascii", "wide", "escaped"])
def test_no_json_line_is_longer_than_a_launcher_reads_at_once(capsys, text):
    log.configure("INFO", json_output=True)
    logger.info("start {} end", text)
    out = capsys.readouterr().out
    assert len(out.encode()) < log.LONGEST_LINE and out.count("\n") == 1
    message = json.loads(out)["record"]["message"]
    assert message.startswith("start ") and message.endswith(" end") and " ... " in message


def test_a_line_is_written_in_one_piece(monkeypatch):
    class Stream:
        def __init__(self) -> None:
            self.actions = []

        def write(self, text: str) -> None:
            self.actions.append(text[-1])

        def flush(self) -> None:
            self.actions.append("flush")

    stream = Stream()
    monkeypatch.setattr(sys, "stdout", stream)
    log.configure("INFO", json_output=True)
    logger.info("hello")
    assert stream.actions == ["\n", "flush"]


def test_tracebacks_travel_in_the_text(capsys):
    log.configure("INFO", json_output=True)
    try:
        raise ValueError("odd")
    except ValueError:
        logger.exception("failed")
    line = json.loads(capsys.readouterr().out)
    assert "Traceback" in line["text"] and "ValueError: odd" in line["text"]


def test_warnings_of_libraries_are_passed_on(capsys):
    log.configure("INFO", json_output=True)
    logging.getLogger("some.library").warning("careful with %s", "that")
    logging.getLogger("some.library").info("chatter")
    (line,) = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert line["record"]["message"] == "some.library: careful with that"
    assert line["record"]["level"]["name"] == "WARNING"
