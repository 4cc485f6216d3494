"""tokenizer.json as the model families write it, against transformers on the same directory."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer

from text_generation_server.tokenization.adapter import TokenizerAdapter

CORPUS = ["The quick brown fox jumps over the lazy dog, it's 12345 o'clock", "café 狐 🙂 fox fox"] * 4
TEXTS = [
    "The quick fox, it 's 1234 .",
    " leading,  inner and trailing  ",
    "cafe\N{COMBINING ACUTE ACCENT} 狐🦊\n\n\tfox",
    "<s>[INST] fox [/INST] the </s> dog",
    "a <|bos|> b<|end|>\nc",
    "a <left> b <right> c <word> d<word>e",
    "",
]
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def byte_level(words: str | None = None, special: tuple[str, ...] = ()) -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    split = [] if words is None else [pre_tokenizers.Split(Regex(words), "isolated")]
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=words is None)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*split, bytes_only])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return tokenizer


def gpt2() -> tokenizers.Tokenizer:
    return byte_level(special=("</s>",))


def llama3() -> tokenizers.Tokenizer:
    tokenizer = byte_level(LLAMA3_WORDS, ("<|bos|>", "<|end|>"))
    template = processors.TemplateProcessing(
        "<|bos|> $A", "<|bos|> $A <|bos|>:1 $B:1", [("<|bos|>", tokenizer.token_to_id("<|bos|>"))]
    )
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return tokenizer


def qwen2() -> tokenizers.Tokenizer:
    tokenizer = byte_level(LLAMA3_WORDS.replace("{1,3}", ""), ("<|end|>", "<|bos|>"))
    tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def sentencepiece(prefixed: bool) -> tokenizers.Tokenizer:
    """Spaces in the normalizer and bos in the template, as Llama 2 (with a space before every part) and Gemma have."""
    names = ["<unk>", "<s>", "</s>"]
    texts = [*names, *(f"<0x{byte:02X}>" for byte in range(256)), *"▁abcdefghijklmnopqrstuvwxyz", "▁t", "▁th", "ox"]
    pairs = [("▁", "t"), ("▁t", "h"), ("o", "x")]
    vocabulary = {text: token_id for token_id, text in enumerate(texts)}
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocabulary, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    spaces = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), spaces]) if prefixed else spaces
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
    tokenizer.add_special_tokens(names)
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s>:1 $B:1", [("<s>", 1)])
    return tokenizer


def llama2() -> tokenizers.Tokenizer:
    return sentencepiece(prefixed=True)


def gemma() -> tokenizers.Tokenizer:
    return sentencepiece(prefixed=False)


def listed(content: str, **flags: bool) -> dict[str, Any]:
    names = ("lstrip", "normalized", "rstrip", "single_word", "special")
    return {"content": content} | dict.fromkeys(names, False) | flags


GENERIC = {"tokenizer_class": "PreTrainedTokenizerFast"}
GPT2_SIZE = gpt2().get_vocab_size()
CASES: dict[str, tuple[Callable[[], tokenizers.Tokenizer], dict[str, Any]]] = {
    "gpt2": (
        gpt2,
        {"tokenizer_class": "GPT2Tokenizer"} | dict.fromkeys(("bos_token", "eos_token", "unk_token"), "</s>"),
    ),
    "llama3": (
        llama3,
        GENERIC | {"bos_token": "<|bos|>", "eos_token": "<|end|>", "clean_up_tokenization_spaces": True},
    ),
    "qwen2": (qwen2, GENERIC | {"bos_token": None, "eos_token": "<|end|>", "additional_special_tokens": ["<|bos|>"]}),
    "llama2": (llama2, GENERIC | {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "gemma": (gemma, GENERIC | {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}),
    "flags_of_new_tokens": (
        gpt2,
        GENERIC
        | {
            "eos_token": "</s>",
            "added_tokens_decoder": {
                str(GPT2_SIZE): listed("<left>", lstrip=True, special=True),
                str(GPT2_SIZE + 1): listed("<right>", rstrip=True),
                str(GPT2_SIZE + 2): listed("<word>", single_word=True, normalized=True),
            },
        },
    ),
    "other_flags_of_known_tokens": (
        gpt2,
        GENERIC
        | {
            "eos_token": "</s>",
            "added_tokens_decoder": {str(GPT2_SIZE - 1): listed("</s>", lstrip=True, rstrip=True)},
        },
    ),
    "flags_of_a_role": (
        gpt2,
        GENERIC | {"eos_token": "</s>", "pad_token": {"__type": "AddedToken"} | listed("<left>", lstrip=True)},
    ),
}


def save(directory: Path, tokenizer: tokenizers.Tokenizer, config: dict[str, Any]) -> Path:
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps(config))
    (directory / "config.json").write_text("{}")
    return directory


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[TokenizerAdapter, Any]:
    build, config = CASES[request.param]
    directory = save(tmp_path_factory.mktemp(request.param), build(), config)
    return TokenizerAdapter.load(directory), AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_ids_and_texts_agree_with_transformers(
    pair: tuple[TokenizerAdapter, Any], text: str, add_special_tokens: bool
) -> None:
    ours, theirs = pair
    encoded = theirs(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True)
    assert ours.encode(text, add_special_tokens=add_special_tokens) == encoded.input_ids
    if add_special_tokens:
        assert [(place.start, place.stop) for place in ours.locate(text)] == encoded.offset_mapping
    for skip in (True, False):
        assert ours.decode(encoded.input_ids, skip) == theirs.decode(encoded.input_ids, skip_special_tokens=skip)


def test_special_tokens_agree_with_transformers(pair: tuple[TokenizerAdapter, Any]) -> None:
    ours, theirs = pair
    flagged = {token_id for token_id, token in theirs.added_tokens_decoder.items() if token.special}
    assert ours.special_ids == flagged | set(theirs.all_special_ids)
    assert ours.eos_ids == {theirs.eos_token_id}
    assert ours.vocab_size == len(theirs)


@pytest.mark.parametrize(
    ("config", "before", "after"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, ["<s>"], []),
        ({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": False}, [], []),
        ({"tokenizer_class": "GemmaTokenizer", "add_bos_token": True, "add_eos_token": True}, ["<s>"], ["</s>"]),
        ({"tokenizer_class": "LlamaTokenizer", "add_eos_token": True, "bos_token": None}, [], ["</s>"]),
        (GENERIC | {"add_bos_token": False, "add_eos_token": True}, ["<s>"], []),
    ],
)
def test_flags_count_where_the_class_has_them(
    tmp_path: Path, config: dict[str, Any], before: list[str], after: list[str]
) -> None:
    """Files say add_bos_token where tokenizer.json was made without it; transformers 4 and TGI's router heed it."""
    ours = TokenizerAdapter.load(save(tmp_path, llama2(), {"bos_token": "<s>", "eos_token": "</s>"} | config))
    plain = ours.encode("the fox", add_special_tokens=False)
    ids = {"<s>": 1, "</s>": 2}
    assert ours.encode("the fox") == [*(ids[text] for text in before), *plain, *(ids[text] for text in after)]


def test_parts_begin_with_a_space_where_tokenizer_json_says_so(tmp_path: Path) -> None:
    """transformers 5 rebuilds this class without tokenizer.json's normalizer; the model was trained with it."""
    config = {"tokenizer_class": "LlamaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "legacy": False}
    ours = TokenizerAdapter.load(save(tmp_path, llama2(), config))
    assert [ours.token_text(token) for token in ours.encode("the</s>the")].count("th") == 2
    assert ours.encode("the</s>the", add_special_tokens=False) == [*ours.encode("the")[1:], 2, *ours.encode("the")[1:]]


def test_tokens_of_another_tokenizer_are_not_mixed_in(tmp_path: Path) -> None:
    """An id that tokenizer.json gives to one token is not given to another."""
    config = GENERIC | {"added_tokens_decoder": {str(GPT2_SIZE - 1): listed("<other>", special=True)}}
    ours = TokenizerAdapter.load(save(tmp_path, gpt2(), config))
    assert ours.token_text(GPT2_SIZE - 1) == "</s>"
    assert ours.vocab_size == GPT2_SIZE
