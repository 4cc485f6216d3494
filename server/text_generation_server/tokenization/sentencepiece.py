"""SentencePiece models, BPE and Unigram, as fast tokenizers. Knows no model directory.

Spaces are written as U+2581 inside pieces. A text that special tokens cut in parts gets its leading space either before
every part (`every_part`, how SentencePiece itself was called at first) or only at its very beginning.
"""

import re
from collections.abc import Sequence

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, Unigram

from text_generation_server.tokenization.merges import merges
from text_generation_server.tokenization.spm_file import Algorithm, Kind, SentencePieceModel
from text_generation_server.tokenization.token_bytes import SPACE


def sentencepiece_tokenizer(model: SentencePieceModel, every_part: bool) -> Tokenizer:
    """A fast tokenizer with the model's ids. ValueError names what is not supported."""
    _refuse_others(model)
    tokenizer = Tokenizer(_unigram(model) if model.algorithm is Algorithm.UNIGRAM else _bpe(model))
    tokenizer.normalizer = normalizers.Sequence(_normalizers(model, prefixed=model.dummy_prefix and every_part))
    if steps := _pre_tokenizers(model, prefixed=model.dummy_prefix and not every_part):
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
    tokenizer.decoder = space_decoder(model.dummy_prefix)
    special = [piece.text for piece in model.pieces if piece.kind in (Kind.UNKNOWN, Kind.CONTROL)]
    tokenizer.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in special])
    return tokenizer


def scored_bpe(
    texts: Sequence[str], ranked: Sequence[str], unknown: str | None, byte_fallback: bool, whole_words: bool = False
) -> BPE:
    """Byte-pair encoding as SentencePiece does it.

    texts: by id. ranked: those that merges make, the best ones first. whole_words: a word that is a token is not split.
    """
    vocabulary = {text: token_id for token_id, text in enumerate(texts)}
    return BPE(
        vocabulary,
        merges(ranked),
        unk_token=unknown,
        fuse_unk=True,
        byte_fallback=byte_fallback,
        ignore_merges=whole_words,
    )


def space_decoder(prefixed: bool) -> decoders.Decoder:
    """Pieces to text: U+2581 to spaces, byte pieces to characters, and without the first space if one was put there."""
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)


def _refuse_others(model: SentencePieceModel) -> None:
    if model.algorithm not in (Algorithm.BPE, Algorithm.UNIGRAM):
        raise ValueError(f"its model_type is {model.algorithm.name}, expected BPE or UNIGRAM")
    if model.spaces_as_suffix or not model.escaped_spaces:
        raise ValueError("it sets treat_whitespace_as_suffix or unsets escape_whitespaces, which is not supported")


def _bpe(model: SentencePieceModel) -> BPE:
    normal = [piece for piece in model.pieces if piece.kind is Kind.NORMAL]
    ranked = [piece.text for piece in sorted(normal, key=lambda piece: -piece.score)]
    texts = [piece.text for piece in model.pieces]
    # Nothing merges into user-defined symbols; they come as words of their own.
    return scored_bpe(texts, ranked, model.text(model.unknown), model.byte_fallback, bool(_user_defined(model)))


def _unigram(model: SentencePieceModel) -> Unigram:
    scores = [(piece.text, piece.score) for piece in model.pieces]
    return Unigram(scores, unk_id=model.unknown, byte_fallback=model.byte_fallback)


def _normalizers(model: SentencePieceModel, prefixed: bool) -> list[normalizers.Normalizer]:
    steps: list[normalizers.Normalizer] = []
    if model.character_map:
        steps.append(normalizers.Precompiled(model.character_map))
    if model.single_spaces:
        steps += [normalizers.Replace(Regex(r"\A +| +\z"), ""), normalizers.Replace(Regex(" {2,}"), " ")]
    if prefixed:
        steps.append(normalizers.Prepend(SPACE))
    return [*steps, normalizers.Replace(" ", SPACE)]


def _pre_tokenizers(model: SentencePieceModel, prefixed: bool) -> list[pre_tokenizers.PreTokenizer]:
    steps: list[pre_tokenizers.PreTokenizer] = []
    if prefixed:
        steps.append(pre_tokenizers.Metaspace(SPACE, prepend_scheme="first", split=False))
    if symbols := _user_defined(model):
        longest_first = sorted(symbols, key=len, reverse=True)
        steps.append(pre_tokenizers.Split(Regex("|".join(map(re.escape, longest_first))), "isolated"))
    return steps


def _user_defined(model: SentencePieceModel) -> list[str]:
    return [piece.text for piece in model.pieces if piece.kind is Kind.USER_DEFINED]
