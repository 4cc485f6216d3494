"""The page at `/`: who gets it, with what, and what it does in a real browser over a router with a fake shard."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mocks.browser import PROGRAMS, Page, browser, find_chromium
from mocks.running_router import RunningRouter, running_router

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "router" / "text_generation_router" / "page"
BROWSERS_ACCEPT = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
STATUS = "document.querySelector('#status').dataset.state"
in_browser = [
    pytest.mark.browser,
    pytest.mark.skipif(find_chromium() is None, reason=f"no Chromium: none of {', '.join(PROGRAMS)} is found"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests; every router is another site to it."""
    with browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _fresh(request: pytest.FixtureRequest) -> None:
    if "page" in request.fixturenames:
        opened: Page = request.getfixturevalue("page")
        opened.complaints.clear()
        opened.look(1280, 800)


def click(selector: str) -> str:
    return f"document.querySelector({selector!r}).click()"


def count(selector: str) -> str:
    return f"document.querySelectorAll({selector!r}).length"


def text(selector: str) -> str:
    return f"document.querySelector({selector!r})?.textContent"


def fill(selector: str, value: object) -> str:
    return f"document.querySelector({selector!r}).value = {value!r}"


def opened(page: Page, router: RunningRouter) -> None:
    """The page, once it knows its server."""
    page.open(router.url)
    page.until("document.querySelector('#model')?.value")


def say(page: Page, words: str) -> None:
    """Send a message as people do."""
    page.run("document.querySelector('#message').focus()")
    page.type(words)
    page.press("Enter")


async def test_browsers_get_the_page_and_others_what_they_always_got(directory: Path) -> None:
    async with running_router(directory) as router:
        shown = await router.client.get("/", headers={"accept": BROWSERS_ACCEPT})
        assert "<title>" in shown.text and shown.headers["vary"].startswith("accept")
        for accept in ("*/*", "application/json"):
            plain = await router.client.get("/", headers={"accept": accept})
            assert (plain.status_code, plain.content) == (200, b"")
        body = {"inputs": "a", "parameters": {"max_new_tokens": 1}}
        posted = await router.client.post("/", json=body, headers={"accept": BROWSERS_ACCEPT})
        assert list(posted.json()[0]) == ["generated_text"]
        known = {"accept": BROWSERS_ACCEPT, "if-none-match": f'W/"other", {shown.headers["etag"]}'}
        again = await router.client.get("/", headers=known)
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", shown.headers["etag"])
        style = await router.client.get("/playground/styles/base.css", headers=known)
        assert style.status_code == 200 and style.headers["etag"] != shown.headers["etag"]


async def test_a_page_that_is_not_wanted(directory: Path) -> None:
    async with running_router(directory, options={"disable_playground": True}) as router:
        plain = await router.client.get("/", headers={"accept": BROWSERS_ACCEPT})
        assert (plain.status_code, plain.content) == (200, b"")
        assert (await router.client.get("/playground/icon.svg")).status_code == 404


async def test_everything_that_the_page_names_is_served_under_a_strict_policy(directory: Path) -> None:
    html = (PAGE / "index.html").read_text()
    linked = set(re.findall(r'(?:href|src)="(playground/[^"]+)"', html))
    scripts = {f"playground/scripts/{path.name}" for path in (PAGE / "scripts").iterdir()}
    async with running_router(directory) as router:
        for path in linked | scripts:
            answer = await router.client.get(f"/{path}")
            assert answer.status_code == 200, path
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'" in policy and "unsafe" not in policy
        assert (await router.client.get("/playground/..%2Fserve.py")).status_code == 404
    imported = {
        name for path in (PAGE / "scripts").iterdir() for name in re.findall(r'from "\./(.+)"', path.read_text())
    }
    assert {f"playground/scripts/{name}" for name in imported} <= scripts
    assert not re.search(r"https?://(?!www\.w3\.org)", html)


def test_a_wheel_has_the_page() -> None:
    wheel = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    packed = {file.distribution_path for file in wheel.recurse_included_files()}
    files = {path.relative_to(PAGE.parents[1]).as_posix() for path in PAGE.rglob("*.*")}
    assert files <= packed and len(files) > 20


class TestInABrowser:
    pytestmark = in_browser

    async def test_a_chat_with_keys_alone(self, page: Page, directory: Path) -> None:
        async with running_router(directory, eos_after=6, adapters=("pirate",)) as router:

            def story() -> None:
                opened(page, router)
                assert page.run("document.activeElement.id") == "message"
                assert page.run("[...document.querySelectorAll('#model option')].map(o => o.textContent)")[1:] == [
                    "pirate (adapter)"
                ]
                page.type("hello")
                page.press("Enter")
                page.until(count(".facts"))
                assert page.run(text(".turn[data-role=assistant] .said")) == router.text("[user]hello[assistant]", 6)
                page.run("document.querySelector('.said[tabindex]').focus()")
                page.press("ArrowRight", "ArrowRight", "ArrowLeft")
                assert page.run("document.activeElement.textContent") == router.text("[user]hello[assistant]", 1)
                assert "%" in page.run(text("#card")) and not page.run("document.querySelector('#card').hidden")
                page.press("Escape")
                assert page.run("document.querySelector('#card').hidden")
                page.run(fill("#model", "pirate"))
                say(page, "again")
                page.until(f"{count('.facts')} == 2")

            await asyncio.to_thread(story)
            asked = [call.batch.requests[0] for name, call in router.shard.calls if name == "Prefill"]
            assert [request.adapter_id for request in asked] == ["", "pirate"]
            answer = router.text("[user]hello[assistant]", 6)
            assert asked[1].inputs == f"<s>[user]hello[assistant]{answer}[user]again[assistant]"
            assert page.complaints == []

    async def test_a_completion_is_shaded_shown_and_taken(self, page: Page, directory: Path) -> None:
        async with running_router(directory) as router:

            def story() -> None:
                opened(page, router)
                page.run("document.querySelector('#tab-chat').focus()")
                page.press("ArrowRight")
                page.run(fill("#max_tokens", 5))
                page.run(fill("#prompt", "once"))
                page.run("document.querySelector('#completion-form').requestSubmit()")
                page.until(count("#completion .facts"))
                page.hover("#completion .token")
                page.until("!document.querySelector('#card').hidden")
                page.run(click("#completion-take"))
                assert page.run("document.querySelector('#prompt').value") == "once" + router.text("once", 5)

            await asyncio.to_thread(story)
            assert page.complaints == []

    async def test_stopping_ends_the_work(self, page: Page, directory: Path) -> None:
        async with running_router(directory, step_s=0.05) as router:

            def story() -> None:
                opened(page, router)
                page.run(fill("#max_tokens", 2000))
                say(page, "go on and on")
                page.until(f"{count('.token')} > 3")
                page.run(click("#chat-form [type=submit]"))
                page.until(count(".facts"))
                assert page.run(text(".facts")).startswith("stopped")

            await asyncio.to_thread(story)
            await router.until_idle()

    async def test_refusals_point_at_what_is_wrong_and_a_key_opens(self, page: Page, directory: Path) -> None:
        async with running_router(directory, eos_after=2, options={"api_key": "sesame"}) as router:

            def story() -> None:
                opened(page, router)
                say(page, "let me in")
                page.until(count(".problem"))
                assert page.run("document.querySelector('#access').open && document.querySelector('#key').ariaInvalid")
                page.run("document.querySelector('#key').focus()")
                page.type("sesame")
                page.run(fill("#top_k", -2))
                page.run(click(".problem button"))
                page.until(f"{text('.problem strong')} == 'Refused'")
                assert "`top_k`" in page.run(text(".problem p"))
                assert page.run("document.querySelector('#top_k').ariaInvalid") == "true"
                page.run(fill("#top_k", ""))
                page.run(click(".problem button"))
                page.until(count(".facts"))
                assert page.run("sessionStorage.length == 1 && !localStorage.getItem('kvrun-api-key')")

            await asyncio.to_thread(story)

    async def test_a_server_that_goes_is_told(self, page: Page, directory: Path) -> None:
        async with running_router(directory) as router:

            def look() -> None:
                opened(page, router)
                page.run("document.dispatchEvent(new Event('visibilitychange'))")
                page.until(f"{STATUS} == 'ready' && {count('.gauge:not([data-silent])')} == 3")

            await asyncio.to_thread(look)
            router.stop.set()
            await router.exit_code

            def miss() -> None:
                page.run("document.dispatchEvent(new Event('visibilitychange'))")
                page.until(f"{STATUS} == 'gone'")
                say(page, "anybody?")
                page.until(count(".problem"))
                assert page.run(text(".problem strong")) == "No connection"

            await asyncio.to_thread(miss)

    @pytest.mark.parametrize(("width", "theme"), [(360, "dark"), (1600, "light")])
    async def test_it_fits_and_everything_has_a_name(self, page: Page, directory: Path, width: int, theme: str) -> None:
        nameless = "[...document.querySelectorAll('input, select, textarea')].filter(e => !e.labels.length).length"
        colours = "getComputedStyle(document.body).backgroundColor"
        async with running_router(directory, eos_after=40) as router:

            def story() -> None:
                page.look(width, 700, theme)
                opened(page, router)
                say(page, "a long message without a break" * 4)
                page.until(count(".facts"))
                page.run("[...document.querySelectorAll('.token')].pop().focus()")
                assert not page.run("document.querySelector('#card').hidden")
                assert page.run("document.documentElement.scrollWidth") <= width
                page.run(click("#tab-completion"))
                assert page.run("document.documentElement.scrollWidth") <= width
                assert page.run(nameless) == 0
                before = page.run(colours)
                page.run(click("#theme"))
                assert page.run(colours) != before
                page.run(click("#theme"))
                assert page.run(colours) == before

            await asyncio.to_thread(story)

    async def test_the_tab_key_reaches_everything_in_reading_order(self, page: Page, directory: Path) -> None:
        order = [
            "",
            "theme",
            "tab-chat",
            "doubts",
            "",
            "message",
            "chat-clear",
            "",
            "",
            "model",
            "temperature",
            "top_p",
        ]
        order += ["repetition_penalty", "frequency_penalty", "max_tokens", "top_k", "seed", "stop", ""]
        async with running_router(directory) as router:

            def story() -> list[str]:
                opened(page, router)
                page.run("document.activeElement.blur(); document.body.tabIndex = -1; document.body.focus()")
                seen = []
                for _ in order:
                    page.press("Tab")
                    seen.append(page.run("document.activeElement.id"))
                return seen

            assert await asyncio.to_thread(story) == order

    async def test_figures_come_from_what_a_server_tells(self, page: Page, directory: Path) -> None:
        """Ours, text-generation-inference's, and none."""
        told = [
            "tgi_generated_tokens 7\ntgi_cache_blocks 8\ntgi_cache_blocks_used 2\ntgi_cache_blocks_cached 4\n"
            'tgi_queue_size 1\ntgi_batch_current_size 3\ntgi_request_generated_tokens_bucket{le="1"} 9\n',
            "# TYPE tgi_request_generated_tokens histogram\ntgi_request_generated_tokens_sum 7.0\n"
            "tgi_batch_current_max_tokens 10\ntgi_batch_max_total_tokens 40\ntgi_batch_current_size 0\n",
            "",
        ]
        script = f"""Promise.all(['exposition', 'figures'].map((name) => import(`/playground/scripts/${{name}}.js`)))
            .then(([{{readMetrics}}, {{tokens, requests, cache}}]) => {json.dumps(told)}.map(readMetrics)
            .map((values) => [tokens(values), requests(values), cache(values)]))"""
        async with running_router(directory) as router:

            def story() -> Any:
                opened(page, router)
                return page.run(script)

            assert await asyncio.to_thread(story) == [
                [7, {"running": 3, "waiting": 1}, {"share": 0.25, "kept": 0.5}],
                [7, {"running": 0, "waiting": 0}, {"share": 0.25, "kept": None}],
                [None, None, None],
            ]

    async def test_texts_find_their_tokens(self, page: Page, directory: Path) -> None:
        """Held back, come in halves, or unlike any token."""
        cases: list[tuple[list[tuple[str, list[str]]], list[list[Any]]]] = [
            ([("ab", ["a", "b"])], [["a", "a"], ["b", "b"]]),
            ([("", ["a", "b"]), ("abc", ["c"])], [["a", "a"], ["b", "b"], ["c", "c"]]),
            ([("a", ["a", "st"]), ("s", [])], [["a", "a"], ["s", "st"]]),
            ([("é", ["�", "�"])], [["é", None]]),
        ]
        script = """import('/playground/scripts/aligner.js').then(({Aligner}) => CASES.map(([chunks]) => {
            const aligner = new Aligner();
            const pieces = chunks.flatMap(([text, tokens]) => aligner.add(text, tokens.map((text) => ({text}))));
            return [...pieces, ...aligner.end()].map(([text, token]) => [text, token?.text ?? null]);
        }))"""
        async with running_router(directory) as router:

            def story() -> Any:
                opened(page, router)
                return page.run(script.replace("CASES", json.dumps(cases)))

            assert await asyncio.to_thread(story) == [expected for _, expected in cases]
