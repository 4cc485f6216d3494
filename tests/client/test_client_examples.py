"""Every example in the client's README runs, against the router over a fake shard."""

import asyncio
import re
from pathlib import Path

import pytest

from mocks.running_router import running_router

README = Path(__file__).parents[2] / "clients" / "python" / "README.md"
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
URL = "http://127.0.0.1:3000"


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
async def test_examples_run(
    tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str], example: str
) -> None:
    assert URL in example
    async with running_router(tmp_path_factory.mktemp("r")) as router:
        await asyncio.to_thread(exec, compile(example.replace(URL, router.url), str(README), "exec"), {})
    assert capsys.readouterr().out.strip()
