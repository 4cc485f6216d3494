"""The tokenizer adapter against transformers, on tokenizers trained here: byte-level, SentencePiece-like, words."""

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.tokenization.adapter import TokenizerAdapter
from text_generation_server.tokenization.converted import ConvertedTokenizer
from text_generation_server.tokenization.fast import Text
from text_generation_server.tokenization.files import TokenizerFiles

CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "Ein Füchslein, it's 12 o'clock! don 't",
    "狐 🦊🦊 🙂 fin",
] * 3
TEXTS = [
    "The quick fox",
    " leading and trailing ",
    "it 's , fine . 1234",
    "🦊 fox 🙂🙂",
    "狐 née Füchslein\n\n\ttab",
    "<s>literal</s> specials <extra> here",
    "",
]


def byte_level() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level_with_eos() -> tokenizers.Tokenizer:
    tokenizer = byte_level()
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A </s>", None, [("<s>", 0), ("</s>", 1)])
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=420, special_tokens=["<unk>", "<s>", "</s>", *byte_tokens], show_progress=False
    )
    tokenizer.train_from_iterator([text.encode("ascii", "ignore").decode() for text in CORPUS], trainer)
    content = json.loads(tokenizer.to_str())
    content["added_tokens"] = content["added_tokens"][:3]
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(content))
    tokenizer.post_processor = processors.TemplateProcessing("<s> $A", "<s> $A <s> $B", [("<s>", 1)])
    return tokenizer


def words() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(models.WordLevel(unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordLevelTrainer(vocab_size=200, special_tokens=["[UNK]", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([*CORPUS, *TEXTS], trainer)
    return tokenizer


def save(directory: Path, tokenizer: tokenizers.Tokenizer | None, **files: dict[str, Any]) -> Path:
    if tokenizer is not None:
        tokenizer.save(str(directory / "tokenizer.json"))
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


BASE = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>"}
CASES: dict[str, tuple[Callable[[], tokenizers.Tokenizer], dict[str, Any]]] = {
    "byte_level": (byte_level, {}),
    "byte_level_clean_up": (byte_level, {"clean_up_tokenization_spaces": True}),
    "byte_level_adds_eos": (byte_level_with_eos, {"add_bos_token": True}),
    "more_specials": (byte_level, {"pad_token": "<pad>", "additional_special_tokens": ["<extra>"]}),
    "metaspace": (metaspace, {"unk_token": "<unk>", "model_max_length": 2048}),
    "metaspace_flag_without_effect": (metaspace, {"unk_token": "<unk>", "add_bos_token": False}),
    "words_clean_up": (words, {"unk_token": "[UNK]", "clean_up_tokenization_spaces": True}),
    "words": (words, {"unk_token": "[UNK]", "clean_up_tokenization_spaces": False}),
}


@pytest.fixture(scope="module", params=CASES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[TokenizerAdapter, PreTrainedTokenizerFast]:
    build, options = CASES[request.param]
    directory = save(tmp_path_factory.mktemp(request.param), build(), tokenizer_config=BASE | options)
    return (
        TokenizerAdapter.load(directory),
        PreTrainedTokenizerFast.from_pretrained(directory, truncation_side="left"),
    )


Pair = tuple[TokenizerAdapter, PreTrainedTokenizerFast]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_encoding_and_decoding_agree_with_transformers(pair: Pair, text: str, add_special_tokens: bool) -> None:
    ours, theirs = pair
    ids = theirs(text, add_special_tokens=add_special_tokens).input_ids
    assert ours.encode(text, 0, add_special_tokens) == ids
    for skip in (True, False):
        assert ours.decode(ids, skip_special_tokens=skip) == theirs.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("add_special_tokens", [True, False])
def test_texts_are_encoded_together_as_alone(pair: Pair, add_special_tokens: bool) -> None:
    ours, _ = pair
    texts = [Text(text, truncate) for text in TEXTS for truncate in (0, 5)]
    alone = [ours.encode(text, truncate, add_special_tokens) for text, truncate in texts]
    assert ours.encode_all(texts, add_special_tokens) == alone


@given(text=st.text(max_size=40), truncate=st.integers(1, 30), add_special_tokens=st.booleans())
def test_truncation_keeps_specials_and_the_last_tokens(
    pair: Pair, text: str, truncate: int, add_special_tokens: bool
) -> None:
    ours, theirs = pair
    everything = ours.encode(text, 0, add_special_tokens)
    if truncate < theirs.num_special_tokens_to_add():
        assert len(ours.encode(text, truncate, add_special_tokens)) <= truncate
        return
    expected = theirs(text, add_special_tokens=add_special_tokens, truncation=True, max_length=truncate).input_ids
    assert ours.encode(text, truncate, add_special_tokens) == expected
    assert len(expected) == min(truncate, len(everything))


def test_special_tokens_and_sizes_agree_with_transformers(pair: Pair) -> None:
    ours, theirs = pair
    added = {token_id for token_id, token in theirs.added_tokens_decoder.items() if token.special}
    assert ours.special_ids == added | set(theirs.all_special_ids)
    assert ours.eos_ids == {theirs.eos_token_id}
    assert ours.vocab_size == len(theirs)
    assert ours.model_max_length == (2048 if theirs.model_max_length == 2048 else None)


def test_token_texts_are_literal(pair: Pair) -> None:
    ours, theirs = pair
    for token_id in range(ours.vocab_size):
        assert ours.token_text(token_id) == theirs.decode([token_id], clean_up_tokenization_spaces=False)


def test_emoji_decode_from_their_pieces(pair: Pair) -> None:
    ours, _ = pair
    ids = ours.encode("🙂", 0, False)
    if len(ids) > 1:
        assert ours.decode(ids) == "🙂"
        assert ours.decode(ids[:-1]).endswith("\N{REPLACEMENT CHARACTER}")


def test_tokens_that_a_model_does_not_know_are_told(pair: Pair) -> None:
    ours, theirs = pair
    last = len(theirs) - 1
    assert ours.ids_beyond(last + 1) == {}
    assert ours.ids_beyond(last) == {last: theirs.convert_ids_to_tokens(last)}


def test_ids_beyond_the_vocabulary_decode_to_nothing(pair: Pair) -> None:
    ours, _ = pair
    assert ours.decode([ours.vocab_size + 5]) == ""


def test_truncation_longer_than_the_prompt_changes_nothing(tmp_path: Path) -> None:
    ours = TokenizerAdapter.load(save(tmp_path, metaspace(), tokenizer_config=BASE))
    long = "The quick brown fox " * 10
    ids = ours.encode(long)
    assert ours.encode(long, len(ids)) == ours.encode(long, 10_000) == ids
    assert ours.encode(long, 10) == ids[:1] + ids[-9:]
    assert ours.encode(long, 1) == ids[:1]


def test_saved_truncation_and_padding_are_switched_off(tmp_path: Path) -> None:
    tokenizer = byte_level()
    tokenizer.enable_truncation(3)
    tokenizer.enable_padding(length=64)
    ours = TokenizerAdapter.load(save(tmp_path, tokenizer, tokenizer_config=BASE))
    assert ours.decode(ours.encode("The quick brown fox")) == "The quick brown fox"


def test_end_tokens_are_the_union_of_all_sources(tmp_path: Path) -> None:
    save(
        tmp_path, byte_level(), tokenizer_config=BASE, config={"eos_token_id": 40, "text_config": {"eos_token_id": 41}}
    )
    assert TokenizerAdapter.load(tmp_path).eos_ids == {1, 40, 41}
    save(tmp_path, None, generation_config={"eos_token_id": [50, 51]}, config={"eos_token_id": None})
    assert TokenizerAdapter.load(tmp_path).eos_ids == {1, 50, 51}


def test_special_tokens_may_be_objects_or_in_the_older_file(tmp_path: Path) -> None:
    older = {"eos_token": {"content": "</s>", "lstrip": False}, "bos_token": "<s>", "pad_token": "fox"}
    save(
        tmp_path, byte_level(), special_tokens_map=older, tokenizer_config={"extra_special_tokens": {"image": "<img>"}}
    )
    ours = TokenizerAdapter.load(tmp_path)
    assert ours.eos_ids == {1}
    image = ours.encode("<img>", 0, False)
    assert len(image) == 1 and set(image) < ours.special_ids
    assert ours.decode(image, skip_special_tokens=True) == ""


def test_tokens_listed_only_in_the_configuration_are_added(tmp_path: Path) -> None:
    next_id = byte_level().get_vocab_size()
    added = {
        str(next_id + 1): {"content": "<tool>", "special": False},
        str(next_id): {"content": "<call>", "special": True, "normalized": False},
    }
    ours = TokenizerAdapter.load(save(tmp_path, byte_level(), tokenizer_config=BASE | {"added_tokens_decoder": added}))
    assert ours.encode("<call><tool>", 0, False) == [next_id, next_id + 1]
    assert ours.special_ids == {0, 1, next_id}


def test_a_bare_tokenizer_file_is_enough(tmp_path: Path) -> None:
    ours = TokenizerAdapter.load(save(tmp_path, byte_level()))
    assert ours.decode(ours.encode("fox")) == "fox"
    assert (ours.eos_ids, ours.model_max_length) == (frozenset(), None)


def test_encoding_from_many_threads_gives_each_its_own(tmp_path: Path) -> None:
    ours = TokenizerAdapter.load(save(tmp_path, metaspace(), tokenizer_config=BASE))
    jobs = [(f"fox number {n} jumps", n % 7) for n in range(200)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda job: ours.encode(*job), jobs))
    assert together == [ours.encode(*job) for job in jobs]


def test_a_directory_without_a_tokenizer_is_named(tmp_path: Path) -> None:
    save(tmp_path, None, config={"eos_token_id": 2}, tokenizer_config=BASE, special_tokens_map={})
    with pytest.raises(ModelNotFound, match=r"has no tokenizer: expected tokenizer\.json"):
        TokenizerAdapter.load(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("content", ["version https://git-lfs", "[1, 2]"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, content: str) -> None:
    save(tmp_path, byte_level(), tokenizer_config=BASE)
    (tmp_path / name).write_text(content)
    with pytest.raises(UnsupportedModel, match=name):
        TokenizerAdapter.load(tmp_path)


def vocabulary_and_merges(directory: Path, **flags: bool) -> Path:
    byte_level().model.save(str(directory))
    options = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<s>"} | flags
    return save(directory, None, tokenizer_config=options, config={"model_type": "gpt2"})


def test_without_a_fast_tokenizer_transformers_converts(tmp_path: Path) -> None:
    (tmp_path / "slow").mkdir()
    ours = TokenizerAdapter.load(vocabulary_and_merges(tmp_path / "slow"))
    fast = TokenizerAdapter.load(save(tmp_path, byte_level(), tokenizer_config=BASE))
    for text in TEXTS:
        assert ours.encode(text) == fast.encode(text)
        assert ours.encode(text, 4) == fast.encode(text, 4)
        assert ours.decode(fast.encode(text)) == fast.decode(fast.encode(text))
    assert ours.token_text(1) == "</s>"
    assert (ours.eos_ids, ours.special_ids, ours.vocab_size) == (fast.eos_ids, fast.special_ids, fast.vocab_size)


def test_what_transformers_converts_has_places_and_follows_the_flags(tmp_path: Path) -> None:
    ours = TokenizerAdapter.load(vocabulary_and_merges(tmp_path, add_bos_token=True))
    places = ours.locate("The fox")
    assert [place.id for place in places] == ours.encode("The fox") == [0, *ours.encode("The fox", 0, False)]
    assert "".join("The fox"[place.start : place.stop] for place in places) == "The fox"


def test_files_that_cannot_be_converted_are_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "vocab.json").write_text("not a vocabulary")
    with pytest.raises(UnsupportedModel, match=r"no tokenizer\.json in .* transformers cannot convert"):
        TokenizerAdapter.load(tmp_path)


def test_remote_code_is_only_run_when_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [*sys.path])
    options = {"auto_map": {"AutoTokenizer": ["remote.Tokenizer", None]}, "tokenizer_class": "Tokenizer"}
    save(tmp_path, None, tokenizer_config=options, config={"model_type": "unheard"})
    (tmp_path / "remote.py").write_text("raise ValueError('remote code ran')")
    with pytest.raises(UnsupportedModel, match=r"is code in that directory .* --trust-remote-code"):
        TokenizerAdapter.load(tmp_path)
    with pytest.raises(UnsupportedModel, match="remote code ran"):
        TokenizerAdapter.load(tmp_path, trust_remote_code=True)


def test_a_fast_tokenizer_loads_without_transformers(tmp_path: Path) -> None:
    save(tmp_path, byte_level(), tokenizer_config=BASE)
    program = (
        "import sys; from pathlib import Path\n"
        "from text_generation_server.tokenization.adapter import TokenizerAdapter\n"
        f"TokenizerAdapter.load(Path({str(tmp_path)!r})).encode('fox'); "
        "sys.exit('transformers' in sys.modules or 'torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_both_backends_are_interchangeable(pair: Pair) -> None:
    _, theirs = pair
    ours, converted = pair[0], TokenizerAdapter(ConvertedTokenizer(theirs), TokenizerFiles.read(Path("absent")))
    for text in TEXTS:
        ids = ours.encode(text, 6)
        assert converted.encode(text, 6) == ids
        assert [converted.decode(ids), converted.decode(ids, True)] == [ours.decode(ids), ours.decode(ids, True)]
        assert [converted.token_text(token) for token in ids] == [ours.token_text(token) for token in ids]
