"""Images in requests of every API, on a router that really listens, before a shard that knows what it is shown."""

import base64
import json
from contextlib import asynccontextmanager
from typing import Any

import pytest

from mocks.file_server import answer, file_server
from mocks.imaged import picture, png
from mocks.running_router import RunningRouter, running_router

SPECIAL = ("<|vision_start|>", "<|image_pad|>", "<|vision_end|>")
MARK = "".join(SPECIAL)
TEMPLATE = (
    "{% for message in messages %}[{{ message.role }}]"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}" + MARK + "{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
TEXTS_ONLY = "{% for message in messages %}[{{ message.role }}]{{ message.content }}{% endfor %}[assistant]"
BLIND = TEMPLATE.replace(MARK, "")

CHAT, MESSAGES, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
FIRST, SECOND = picture(8, 4), picture(4, 4, form="JPEG")
"""Of 8 features and of 4, each two pixels by two."""


def data_url(file: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(file).decode()}"


def shown(file: bytes) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": data_url(file)}}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": [{"type": "text", "text": c} if isinstance(c, str) else c for c in content]}


@asynccontextmanager
async def seeing(directory, template: str = TEMPLATE, images: bool = True, **options: Any):
    """A router with the files of a model that takes images. images: whether its shard does too."""
    (directory / "config.json").write_text(json.dumps({"model_type": "qwen2_vl"}))
    settings = {"patch_size": 2, "merge_size": 1, "min_pixels": 4, "max_pixels": 400}
    (directory / "preprocessor_config.json").write_text(json.dumps(settings))
    files: dict[str, Any] = {"template": template, "added": SPECIAL}
    async with running_router(directory, options=options, images=images, **files) as router:
        yield router


@pytest.fixture
async def router(directory):
    async with seeing(directory) as running:
        yield running


def sent(router: RunningRouter) -> list[Any]:
    """The chunks of the last request: texts and files."""
    return [chunk.text or chunk.image.data for chunk in router.sent()[-1].input_chunks.chunks]


async def test_markdown_in_a_prompt(router):
    inputs = f"One ![]({data_url(FIRST)}) and ![]({data_url(SECOND, 'image/jpeg')})"
    answered = await router.generate(inputs, max_new_tokens=3, details=True)
    assert answered.status_code == 200 and answered.json()["details"]["generated_tokens"] == 3
    assert sent(router) == ["One ", FIRST, " and ", SECOND]
    assert [chunk.image.mimetype for chunk in router.sent()[-1].input_chunks.chunks][1::2] == [
        "image/png",
        "image/jpeg",
    ]
    # A token before the text; for each image two marks and its features.
    assert answered.headers["x-prompt-tokens"] == str(1 + len("One  and ") + 2 + 8 + 2 + 4)


async def test_parts_of_a_chat(router):
    body = {"messages": [user("Look:", shown(FIRST), "What?"), user(shown(SECOND))], "max_tokens": 2}
    told = (await router.client.post(CHAT, json=body)).json()
    assert sent(router) == ["[user]Look:", FIRST, "What?[user]", SECOND, "[assistant]"]
    assert told["usage"]["prompt_tokens"] == len("[user]Look:What?[user][assistant]") + 2 * 2 + 8 + 4
    async with router.client.stream("POST", CHAT, json={**body, "stream": True}) as response:
        assert response.status_code == 200 and "[DONE]" in (await response.aread()).decode()


async def test_blocks_of_anthropic(router):
    source = {"type": "base64", "media_type": "image/png", "data": base64.b64encode(FIRST).decode()}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "image", "source": source}]}
    content = [result, {"type": "text", "text": "Hi"}, {"type": "image", "source": source}]
    body = {"model": "m", "messages": [{"role": "user", "content": content}]}
    told = await router.client.post(MESSAGES, json={**body, "max_tokens": 2})
    assert told.status_code == 200, told.text
    assert [part for part in sent(router) if isinstance(part, bytes)] == [FIRST, FIRST]
    counted = await router.client.post(f"{MESSAGES}/count_tokens", json=body)
    assert counted.json()["input_tokens"] == told.json()["usage"]["input_tokens"] > 2 * 10


async def test_items_of_responses(router):
    content = [{"type": "input_text", "text": "Hi"}, {"type": "input_image", "image_url": data_url(FIRST)}]
    body = {"input": [{"role": "user", "content": content}], "max_output_tokens": 2}
    told = await router.client.post(RESPONSES, json=body)
    assert told.status_code == 200 and sent(router) == ["[user]Hi", FIRST, "[assistant]"]
    wrong = [{"type": "input_image", "file_id": "file-1"}]
    told = await router.client.post(RESPONSES, json={"input": [{"role": "user", "content": wrong}]})
    assert told.status_code == 422 and "`image_url`" in told.json()["error"]["message"]


async def test_a_template_of_texts_has_images_where_they_stand(directory):
    async with seeing(directory, TEXTS_ONLY) as router:
        body = {"messages": [user("a", shown(FIRST), "b")], "max_tokens": 1}
        assert (await router.client.post(CHAT, json=body)).status_code == 200
        assert sent(router) == ["[user]a", FIRST, "b[assistant]"]


async def test_places_must_be_as_many_as_images(directory):
    async with seeing(directory, BLIND) as router:
        told = await router.client.post(CHAT, json={"messages": [user(shown(FIRST))], "max_tokens": 1})
        assert told.status_code == 422 and "has 1 images, and the model's chat template has made 0 places" in told.text
    async with seeing(directory) as router:
        told = await router.client.post(CHAT, json={"messages": [user(shown(FIRST), MARK)], "max_tokens": 1})
        assert told.status_code == 422 and "has made 2 places" in told.text
        told = await router.client.post(CHAT, json={"messages": [user(f"no image: {MARK}")], "max_tokens": 1})
        assert told.status_code == 200  # it is only a text


async def test_words_of_a_chat_are_never_fetched(router):
    told = await router.client.post(CHAT, json={"messages": [user("![](http://example.com/a.png)")], "max_tokens": 1})
    assert told.status_code == 200 and sent(router) == ["[user]![](http://example.com/a.png)[assistant]"]


async def test_prefixes_are_shared_by_content(router):
    """Placeholders alone are alike: what is shared has to be what the shard has seen, which it checks."""

    def prompt(file: bytes) -> str:
        return f"![]({data_url(file)})" + "x" * 70

    other = picture(8, 4, shade=1)
    for file, cached in ((FIRST, 0), (other, 2), (FIRST, 80), (other, 80)):
        assert (await router.generate(prompt(file), max_new_tokens=1)).status_code == 200
        await router.until_idle()
        assert router.sent()[-1].cache_len == cached


REFUSED = {
    "damaged": (data_url(FIRST[:50]), "image 1 cannot be used: it is damaged"),
    "no image": (data_url(b"hello"), "none of PNG, JPEG"),
    "no base64": ("data:image/png;base64,#", "its base64 is damaged"),
    "too thin": (data_url(picture(1, 300)), "one side more than 200 times the other"),
    "a file": ("file:///etc/passwd", "neither data:image/…;base64,… nor at an http or https URL"),
    "this machine": ("http://127.0.0.1/a.png", "it is at an address of a private network"),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_images_that_cannot_be_used_are_a_fault_of_the_client(router, name):
    url, reason = REFUSED[name]
    told = await router.generate(f"a ![]({url})", max_new_tokens=1)
    assert told.status_code == 422 and reason in told.json()["error"]
    told = await router.client.post(CHAT, json={"messages": [user({"type": "image_url", "image_url": url})]})
    assert told.status_code == 422 and reason in told.json()["error"]["message"]
    assert router.sent() == [] and (await router.generate("a", max_new_tokens=1)).status_code == 200


ODD = [{}, {"image_url": None}, {"image_url": 5}, {"image_url": {"url": []}}, {"image_url": [{}]}, {"type": "image"}]


async def test_parts_that_are_no_images_are_refused_by_name(router):
    for part in ODD:
        told = await router.client.post(CHAT, json={"messages": [user({"type": "image_url", **part})]})
        assert told.status_code == 422 and "`messages` has an image" in told.json()["error"]["message"], part
    for source in (None, {}, {"type": "base64", "data": 5}, {"type": "file", "file_id": "f"}):
        content = [{"type": "image", "source": source}]
        told = await router.client.post(
            MESSAGES, json={"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": content}]}
        )
        assert told.status_code == 422 and "an image without a `source`" in told.json()["error"]["message"], source


async def test_limits(directory):
    async with seeing(directory, max_images=2, max_total_tokens=40) as router:
        one = f"![]({data_url(FIRST)})"
        told = await router.generate(one * 3, max_new_tokens=1)
        assert told.status_code == 422 and "may have 2 images (--max-images). Given: 3" in told.text
        large = f"![]({data_url(png(6000, 6000))})"
        told = await router.generate(large * 2, max_new_tokens=1)
        assert told.status_code == 422 and "may have 67108864 pixels in all. Given: 72000000" in told.text
        told = await router.generate(one * 2 + "x" * 20, max_new_tokens=1)
        assert told.status_code == 422 and "Given: 41 `inputs` tokens" in told.text
        told = await router.generate(one, max_new_tokens=1, truncate=5)
        assert told.status_code == 422 and "keeping 5 tokens of the prompt would cut through an image" in told.text
        told = await router.generate(one * 2, max_new_tokens=1, truncate=11)
        assert told.status_code == 200 and told.headers["x-prompt-tokens"] == "11"


async def test_images_are_fetched_where_the_operator_allows_it(directory):
    files = {"/a.png": answer(FIRST), "/large.png": answer(bytes(2000))}
    limits = {"image_url_private": True, "max_image_fetch_size": 1000, "image_url_timeout": 0.2}
    async with file_server(files) as server, seeing(directory, **limits) as router:
        told = await router.generate(f"a ![]({server.url('/a.png')})", max_new_tokens=1)
        assert told.status_code == 200 and sent(router) == ["a ", FIRST]
        for path, reason in (("/large.png", "2000 bytes, expected at most 1000"), ("/hangs", "within 0.2 s")):
            told = await router.generate(f"a ![]({server.url(path)})", max_new_tokens=1)
            assert told.status_code == 422 and reason in told.json()["error"]


async def test_a_model_of_texts_refuses_images_by_name(directory):
    async with seeing(directory, images=False) as router:
        told = await router.client.post(CHAT, json={"messages": [user(shown(FIRST))]})
        assert (
            told.status_code == 422
            and "part of type image_url, which is not taken: this model takes text only" in told.text
        )
        inputs = f"![]({data_url(b'x')})"
        assert (await router.generate(inputs, max_new_tokens=1)).status_code == 200
        assert router.sent()[-1].inputs == inputs


async def test_pieces_of_text_are_none_of_images(router):
    told = await router.client.post("/chat_tokenize", json={"messages": [user(shown(FIRST))]})
    assert told.status_code == 422 and "`messages` has images" in told.text
