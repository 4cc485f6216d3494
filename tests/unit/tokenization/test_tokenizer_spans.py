"""Sequences between marker tokens are tokenised character by character, as Galactica's tokenizer.json expects."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from text_generation_router.tokenizer import PromptTokenizer, load_backend
from text_generation_server.tokenization.adapter import TokenizerAdapter

SEPARATOR = "SPL1T-TH1S-Pl3A5E"
KINDS = ["SMILES", "I_SMILES", "AMINO", "DNA"]
MARKERS = [f"[{side}_{kind}]" for kind in KINDS for side in ("START", "END")]
CORPUS = ["the molecule CCOCCOCCO binds MKVLAAGGMKVL and GATTACAGATTACA at 25 degrees"] * 5


def build(drops_separator: bool = True, markers: Sequence[str] = MARKERS) -> tokenizers.Tokenizer:
    """A byte-level tokenizer with steps as Galactica's, and merges that join what sequences are made of."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFKC()
    steps: list[pre_tokenizers.PreTokenizer] = [pre_tokenizers.Split(SEPARATOR, "removed")] if drops_separator else []
    steps += [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        CORPUS, trainers.BpeTrainer(vocab_size=330, initial_alphabet=alphabet, show_progress=False)
    )
    tokenizer.add_special_tokens(list(markers))
    return tokenizer


def save(tokenizer: tokenizers.Tokenizer, directory: Path) -> Path:
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory


def texts(tokenizer: TokenizerAdapter, prompt: str) -> list[str]:
    return [tokenizer.token_text(token) for token in tokenizer.encode(prompt)]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(build(), tmp_path_factory.mktemp("galactica"))


@pytest.fixture(scope="module")
def galactica(directory: Path) -> TokenizerAdapter:
    return TokenizerAdapter.load(directory)


@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_is_split_into_characters(galactica: TokenizerAdapter, kind: str) -> None:
    start, end = f"[START_{kind}]", f"[END_{kind}]"
    assert texts(galactica, f"the {start}CCOCCO{end} CCOCCO") == ["the", " ", start, *"CCOCCO", end, " CCOCCO"]


@pytest.mark.parametrize(
    "prompt",
    [
        "CCOCCO",
        "[START_DNA]GATTACA",
        "[START_DNA]GATTACA[END_AMINO]",
        "[START_DNA]GATT\nACA[END_DNA]",
        "[START_DNA][END_DNA]",
        "[START_OTHER]CCOCCO[END_OTHER]",
    ],
)
def test_other_texts_are_left_alone(galactica: TokenizerAdapter, prompt: str) -> None:
    assert galactica.encode(prompt) == build().encode(prompt).ids


def test_each_of_several_sequences_is_split(galactica: TokenizerAdapter) -> None:
    prompt = "[START_DNA]GATTACA[END_DNA][START_AMINO]MKVL[END_AMINO][START_DNA]GA[END_DNA]"
    pieces = ["[START_DNA]", *"GATTACA", "[END_DNA]", "[START_AMINO]", *"MKVL", "[END_AMINO]"]
    assert texts(galactica, prompt) == [*pieces, "[START_DNA]", *"GA", "[END_DNA]"]
    assert galactica.decode(galactica.encode(prompt)) == prompt


@given(
    text=st.lists(st.sampled_from([*MARKERS, "CCO", "GATTACA", "é", "🙂", " ", "\n", "25"]), max_size=12).map("".join)
)
def test_places_refer_to_the_text_itself(galactica: TokenizerAdapter, text: str) -> None:
    places = galactica.locate(text)
    assert [place.id for place in places] == galactica.encode(text)
    for place in places:
        piece = text[place.start : place.stop]
        assert galactica.token_text(place.id) == piece or not piece.isascii()
    assert {at for place in places for at in range(place.start, place.stop)} == set(range(len(text)))


@pytest.mark.parametrize("plain", [build(drops_separator=False), build(markers=["[START_SMILES]", "[END_DNA]"])])
def test_without_separator_or_markers_nothing_is_split(tmp_path: Path, plain: tokenizers.Tokenizer) -> None:
    ours = TokenizerAdapter.load(save(plain, tmp_path))
    assert "CCOCCO" in texts(ours, "[START_SMILES]CCOCCO[END_SMILES]")


async def test_the_router_counts_and_locates_alike(directory: Path, galactica: TokenizerAdapter) -> None:
    router = PromptTokenizer(load_backend(directory, trust_remote_code=False), workers=1)
    prompt = "é [START_SMILES]CCO[END_SMILES]"
    assert await router.encode(prompt, 3, True) == tuple(galactica.encode(prompt, 3))
    pieces = await router.pieces(prompt)
    router.close()
    assert [(piece.text, piece.start, piece.stop) for piece in pieces[-5:]] == [
        ("[START_SMILES]", 3, 17),
        ("C", 17, 18),
        ("C", 18, 19),
        ("O", 19, 20),
        ("[END_SMILES]", 20, 32),
    ]
