"""Ids of prompts with images against transformers' own processors, 5.24, and what truncation leaves of them."""

import json

import numpy as np
import pytest
import tokenizers
from PIL import Image
from transformers import (
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    Idefics2ImageProcessorPil,
    Idefics2Processor,
    Idefics3ImageProcessorPil,
    Idefics3Processor,
    IdeficsImageProcessorPil,
    IdeficsProcessor,
    LlavaNextImageProcessorPil,
    LlavaNextProcessor,
    MllamaImageProcessorPil,
    MllamaProcessor,
    PaliGemmaProcessor,
    PreTrainedTokenizerFast,
    SiglipImageProcessorPil,
)

from text_generation_server.errors import InvalidRequest, UnsupportedModel
from text_generation_server.images.family import ImageFamily, Processor, Standing
from text_generation_server.images.prompts import ImagePrompts
from text_generation_server.images.registry import read_family
from text_generation_server.tokenization.adapter import TokenizerAdapter

SPECIAL = ["<bos>", "<eos>", "<image>", "<fake_token_around_image>", "<end_of_utterance>", "<row_1_col_1>"]
SPECIAL += ["<row_1_col_2>", "<global-img>", "<start_of_image>", "<image_soft_token>", "<end_of_image>"]
SPECIAL += ["<|image|>", "<|begin_of_text|>", "<s>"]
ROLES = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}


def tokenizer(folder, **roles):
    """One of bytes, saved by transformers."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    model = tokenizers.models.BPE({character: i for i, character in enumerate(alphabet)} | {"ĊĊ": 256}, [("Ċ", "Ċ")])
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    backend.add_special_tokens([tokenizers.AddedToken(text, special=True, normalized=False) for text in SPECIAL])
    backend.post_processor = tokenizers.processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 257), ("<eos>", 258)]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<bos>", eos_token="<eos>", extra_special_tokens=roles
    )
    made.save_pretrained(folder)
    return made


def llava_next(folder):
    images = LlavaNextImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}, image_grid_pinpoints=[[56, 112], [112, 112]]
    )
    config = {"vision_config": {"image_size": 56, "patch_size": 14}}
    settings = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return LlavaNextProcessor(images, tokenizer(folder), **settings), config


def idefics2(folder):
    images = Idefics2ImageProcessorPil(size={"shortest_edge": 30, "longest_edge": 80}, do_image_splitting=True)
    return Idefics2Processor(images, tokenizer(folder)), {}


def idefics3(folder):
    images = Idefics3ImageProcessorPil(size={"longest_edge": 56}, max_image_size={"longest_edge": 28})
    made = Idefics3Processor(images, tokenizer(folder), image_seq_len=4)
    return made, {"vision_config": {"patch_size": 7}, "scale_factor": 2}


def paligemma(folder):
    images = SiglipImageProcessorPil(size={"height": 28, "width": 28})
    images.image_seq_length = 4
    return PaliGemmaProcessor(images, tokenizer(folder)), {"vision_config": {"image_size": 28, "patch_size": 14}}


def gemma3(folder):
    images = Gemma3ImageProcessorPil(size={"height": 28, "width": 28})
    return Gemma3Processor(images, tokenizer(folder, **ROLES), image_seq_length=5), {"mm_tokens_per_image": 5}


def mllama(folder):
    images = MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=4)
    made = tokenizer(folder)
    made.bos_token = "<|begin_of_text|>"
    return MllamaProcessor(images, made), {"vision_config": {"image_size": 28, "patch_size": 14}}


FAMILIES = [llava_next, idefics2, idefics3, paligemma, gemma3, mllama]


@pytest.mark.parametrize("make", FAMILIES, ids=lambda make: make.__name__)
def test_ids_are_those_of_transformers(tmp_path, make):
    theirs, config = make(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": make.__name__, **config}))
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(theirs.image_processor.to_dict()))
    prompts = ImagePrompts(read_family(tmp_path), TokenizerAdapter.load(tmp_path))
    random = np.random.default_rng(1)
    for texts in (["", "What is this?"], ["One ", "two", ""], ["See:\n", "\n", "Äh\n\n", ""]):
        images = [
            Image.fromarray(random.integers(0, 256, (*random.integers(2, 150, 2), 3), dtype=np.uint8))
            for _ in texts[1:]
        ]
        text = prompts.family.mark.join(texts)
        expected = theirs(text=text, images=[images], add_special_tokens=not prompts.family.framed)
        ours = prompts.encode(texts, [(image.height, image.width) for image in images], 0, True)
        assert list(ours.ids) == expected["input_ids"][0], texts
        token = theirs.tokenizer.convert_tokens_to_ids(prompts.family.token)
        filled = [place for number in range(len(images)) for place in ours.positions[number]]
        assert filled == [place for place, one in enumerate(ours.ids) if one == token]


def test_ids_of_pieces_are_those_of_transformers(tmp_path):
    """Idefics' processor takes texts and images in turn, and no spaces around them."""
    made = tokenizer(tmp_path)
    made.bos_token, made.pad_token = "<s>", "<eos>"
    theirs = IdeficsProcessor(IdeficsImageProcessorPil(image_size=28), made)
    config = {"model_type": "idefics", "vision_config": {"image_size": 28}, "use_resampler": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    prompts = ImagePrompts(read_family(tmp_path), TokenizerAdapter.load(tmp_path))
    image = Image.new("RGB", (40, 30))
    for texts in (["", " What is this? "], ["One ", "two", ""], ["See:\n", "", " Äh\n\n", ""]):
        pieces = [piece for text in texts for piece in (text, image) if piece][:-1]
        ours = prompts.encode(texts, [(30, 40)] * (len(texts) - 1), 0, True)
        assert list(ours.ids) == theirs(text=[pieces])["input_ids"][0].tolist(), texts


class Dots(Processor):
    """As many features as the image is high, in runs of its width."""

    def standing(self, height, width):
        return Standing("<i>" * -(-height // width), (width,) * (height // width))

    def pixels(self, image):
        raise NotImplementedError


class Letters:
    """Ids are letters between 0 and 9 where special tokens are wanted; that of an image is 1."""

    def encode(self, text, truncate, add_special_tokens):
        ids = [ord(letter) for letter in text.replace("<i>", "\1")]
        return [0, *ids, 9] if add_special_tokens else ids

    def id_of(self, token):
        return 1 if token == "<i>" else None


DOTS = ImagePrompts(ImageFamily(Dots(), token="<i>", mark="<i>"), Letters())
SIZES = [(2, 2), (4, 2)]


def ids(text):
    return tuple(map(ord, text))


@pytest.mark.parametrize(
    ("truncate", "kept", "positions"),
    [
        (0, "ab\1\1c\1\1\1\1", {0: range(3, 5), 1: range(6, 10)}),
        (11, "ab\1\1c\1\1\1\1", {0: range(3, 5), 1: range(6, 10)}),
        (10, "b\1\1c\1\1\1\1", {0: range(2, 4), 1: range(5, 9)}),
        (9, "\1\1c\1\1\1\1", {0: range(1, 3), 1: range(4, 8)}),
        (7, "c\1\1\1\1", {1: range(2, 6)}),
        (2, "", {}),
    ],
)
def test_truncation_keeps_the_end_and_whole_images(truncate, kept, positions):
    made = DOTS.encode(["ab", "c", ""], SIZES, truncate, True)
    assert made.ids == (0, *ids(kept), 9)
    assert made.positions == positions


@pytest.mark.parametrize("truncate", [8, 5, 3])
def test_no_image_is_cut_through(truncate):
    with pytest.raises(InvalidRequest, match=f"keeping {truncate} tokens of the prompt would cut through an image"):
        DOTS.encode(["ab", "c", ""], SIZES, truncate, True)


def test_a_text_cannot_stand_for_an_image():
    with pytest.raises(InvalidRequest, match="a prompt with images cannot have <i> in its text"):
        DOTS.encode(["a<i>", ""], [(1, 1)], 0, True)


def test_a_tokenizer_must_know_images():
    with pytest.raises(UnsupportedModel, match="no token <image>"):
        ImagePrompts(ImageFamily(Dots(), token="<image>", mark="<image>"), Letters())
