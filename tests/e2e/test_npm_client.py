"""The npm package `openai` talks to a real model; where it is found NODE_PATH says."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("openai_client.cjs")


def has_client() -> bool:
    node = shutil.which("node")
    return node is not None and subprocess.run([node, "-e", "require('openai')"], capture_output=True).returncode == 0


@pytest.mark.skipif(not has_client(), reason="no node, or no npm package openai on NODE_PATH")
def test_it_reads_every_kind_of_answer(server):
    node = subprocess.run(["node", SCRIPT, server.url], capture_output=True, text=True, timeout=120)
    assert node.returncode == 0, node.stderr
    told = json.loads(node.stdout)
    assert told["models"] == ["smollm2"] and told["error"] == ["UnprocessableEntityError", 422, "top_p"]
    assert "Paris" in told["chat"] and told["chat"] == told["streamed"]
    assert told["response"] == told["responseStreamed"] == told["chat"]
    whole, streamed = told["usages"]
    assert whole == streamed and whole["completion_tokens"] > 3
    reason, call = told["call"]
    assert (reason, call["name"], list(json.loads(call["arguments"]))) == ("tool_calls", "weather", ["city"])
    assert list(told["parsed"]) == ["city"] and told["completion"].startswith(" 4, 5")
