"""Writes the table and the commands of docs/http-api.md from the routes themselves: `make docs`."""

from pathlib import Path
from unittest.mock import MagicMock

from text_generation_router.app import endpoints
from text_generation_router.routes.endpoint import Endpoint
from text_generation_router.routes.openai.style import OPENAI

PAGE = Path(__file__).parents[2] / "docs/http-api.md"
BASE = "localhost:3000"
_BEGIN, _END = "<!-- made from the routes by `make docs` -->\n", "<!-- end of what is made -->\n"


def all_endpoints() -> list[Endpoint]:
    """Every route, also those behind a flag."""
    services = MagicMock()
    services.info = {"model_id": "smollm2", "version": "0"}
    services.validator.adapters = ()
    return endpoints(services, OPENAI, kserve=True)


def page(text: str) -> str:
    """The page with what is made in its place."""
    before, _, rest = text.partition(_BEGIN)
    return before + _BEGIN + _made(all_endpoints()) + _END + rest.partition(_END)[2]


def _made(listed: list[Endpoint]) -> str:
    rows = [
        f"| {one.method} | `{one.path_format}` | {one.summary} | {', '.join(one.told.answers) or 'nothing'} |"
        for one in listed
    ]
    table = "\n".join(["| method | path | what it does | answers |", "| --- | --- | --- | --- |", *rows])
    return f"{table}\n\n```bash\n" + "\n".join(one.curl(BASE) for one in listed) + "\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text()))
