"""Images in the prompts of both versions: to ids, pixels and places, or the refusal of that request alone."""

import base64

import numpy as np
import pytest

from mocks.imaged import FAMILY, TOKEN, picture
from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3
from text_generation_server.images.placing import ImagePlacer, PreparedImages
from text_generation_server.images.prompts import ImagePrompts

BOS, IMAGE, LOOK, LOOKED = 300, 301, 302, 303
FILES = picture(3, 2), picture(2, 1)


class Words:
    """Ids are letters, after BOS where special tokens are wanted; three marks are tokens."""

    def encode(self, text, truncate, add_special_tokens):
        for mark, token in ((TOKEN, IMAGE), ("<look>", LOOK), ("</look>", LOOKED)):
            text = text.replace(mark, chr(token))
        return [BOS] * add_special_tokens + [ord(letter) for letter in text]

    def id_of(self, token):
        return IMAGE if token == TOKEN else None


@pytest.fixture
def shard(start_shard, engine):
    return start_shard(engine, images=ImagePlacer(ImagePrompts(FAMILY, Words())))


def url(file, kind="image/png"):
    return f"![](data:{kind};base64,{base64.b64encode(file).decode()})"


def chunks(*parts):
    """Texts, and files of images."""
    made = [
        pb_v3.InputChunk(text=p) if isinstance(p, str) else pb_v3.InputChunk(image=pb_v3.Image(data=p)) for p in parts
    ]
    return {"input_chunks": pb_v3.Input(chunks=made), "add_special_tokens": True}


def prefill(pb, *requests, **fields):
    options = {"stopping_parameters": pb.StoppingCriteriaParameters(max_new_tokens=3)}
    made = [pb.Request(id=number, **options | given) for number, given in enumerate(requests)]
    return pb.PrefillRequest(batch=pb.Batch(id=5, requests=made), **fields)


PROMPTS = {
    "v2": {"inputs": f"ab{url(FILES[0])}c{url(FILES[1], 'image/jpeg;base64')}"},
    "v3": chunks("a", "b", FILES[0], "c", FILES[1]),
}


@pytest.mark.parametrize(("version", "pb"), [("v2", pb_v2), ("v3", pb_v3)])
def test_images_are_ids_pixels_and_places(shard, engine, version, pb):
    getattr(shard, version).Prefill(prefill(pb, PROMPTS[version], {"inputs": "plain"}))
    assert engine.prompts[0] == (BOS, *b"ab", LOOK, *[IMAGE] * 6, LOOKED, *b"c", LOOK, IMAGE, IMAGE, LOOKED)
    imaged, plain = engine.last.requests
    first, second = imaged.images
    assert (first.positions, second.positions) == (range(4, 10), range(13, 15)) and plain.images == ()
    assert (first.image.original, first.image.tokens, first.image.grid) == ((2, 3), 6, (2, 3))
    assert np.array_equal(first.image.pixels[0, 0].ravel(), np.arange(0, 18, 3) * 7)


def test_what_is_generated_comes_behind(shard, engine):
    shard.v3.Prefill(prefill(pb_v3, {**PROMPTS["v3"], "generated_ids": [7], "resumable": True}))
    (request,) = engine.last.requests
    assert request.prompt_ids[-2:] == (LOOKED, 7) and request.images[1].positions == range(13, 15)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (chunks("a", FILES[0][:50]), "image 1 of the prompt cannot be used: it is damaged, or ends too early"),
        (chunks(FILES[0], b"GIF89a no"), "image 2 of the prompt cannot be used: it is"),
        (chunks(FILES[0], TOKEN), f"a prompt with images cannot have {TOKEN} in its text"),
        ({**chunks("a", FILES[0]), "truncate": 7}, "keeping 7 tokens of the prompt would cut through an image"),
        ({**chunks(FILES[0]), "prompt_ids": [1]}, "the prompt has an image, and came as token ids"),
    ],
    ids=["cut off", "no image", "a token in the text", "truncated", "ids"],
)
def test_an_image_that_cannot_be_used_fails_its_request_alone(shard, engine, given, reason):
    shard.v3.Prefill(prefill(pb_v3, given, {"inputs": "plain"}))
    assert [request.id for request in engine.last.requests] == [1]
    (refused,) = engine.last.refused
    assert refused.reason.startswith(f"request 0: {reason}")


def test_shards_fetch_nothing(shard, engine):
    shard.v2.Prefill(prefill(pb_v2, {"inputs": "![](http://127.0.0.1:9/a.png)"}, {"inputs": "plain"}))
    (refused,) = engine.last.refused
    assert "shards fetch nothing: send it as a data URL" in refused.reason


def test_a_file_that_comes_again_is_not_read_again(shard, engine):
    shard.v3.Prefill(prefill(pb_v3, chunks(FILES[0]), chunks("x", FILES[0])))
    first, second = engine.last.requests
    assert first.images[0].image is second.images[0].image


def test_only_so_much_is_kept():
    kept = PreparedImages(FAMILY.processor, room=3 * 6 * 4 * 2)  # two images of six pixels
    files = [picture(3, 2, shade=shade) for shade in range(3)]
    first, second, third = map(kept.of, files)
    assert kept.of(files[1]) is second and kept.of(files[2]) is third and kept.of(files[0]) is not first
    large = picture(20, 20)
    assert kept.of(large) is not kept.of(large) and kept.of(files[2]) is third


def test_warm_ups_pass_the_image_over(shard, engine):
    batch = pb_v3.Batch(requests=[pb_v3.Request(**chunks("_test ", FILES[0]))])
    shard.v3.Warmup(pb_v3.WarmupRequest(batch=batch, max_prefill_tokens=16))
    assert engine.prompts == [(BOS, *b"_test ")]
    batch = pb_v2.Batch(requests=[pb_v2.Request(inputs=f"_test {url(FILES[0])}")])
    shard.v2.Warmup(pb_v2.WarmupRequest(batch=batch, max_prefill_tokens=16))
    assert engine.prompts == [(BOS, *b"_test ")]


def test_routers_learn_it_and_those_that_do_not_know_share_no_prefixes(shard):
    info = shard.v3.Info(pb_v3.InfoRequest())
    assert "images" in info.request_extensions
    assert (info.use_prefix_caching, info.prefix_caching_by_adapter) == (False, True)
