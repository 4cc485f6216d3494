"""SentencePiece BPE as GGUF files hold it (tokenizer.ggml.model "llama"): pieces with scores, and no list of merges."""

from tokenizers import Tokenizer, normalizers

from text_generation_server.tokenization.sentencepiece import scored_bpe, space_decoder
from text_generation_server.tokenization.token_bytes import SPACE
from text_generation_server.weights.gguf.container import Container

_NORMAL, _UNKNOWN = 1, 2


def sentencepiece_tokenizer(gguf: Container) -> Tokenizer:
    """The tokenizer without its special tokens; characters outside the vocabulary become byte tokens."""
    tokens = [str(token) for token in gguf.array("tokenizer.ggml.tokens")]
    kinds = gguf.array("tokenizer.ggml.token_type")
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), None)
    tokenizer = Tokenizer(scored_bpe(tokens, _ranked(gguf, tokens), unknown, byte_fallback=True))
    prefixed = gguf.flag("tokenizer.ggml.add_space_prefix", default=True)
    tokenizer.normalizer = _normalizer(prefixed)
    tokenizer.decoder = space_decoder(prefixed)
    return tokenizer


def _ranked(gguf: Container, tokens: list[str]) -> list[str]:
    """The normal pieces, those with the highest score first."""
    kinds, scores = gguf.array("tokenizer.ggml.token_type"), gguf.array("tokenizer.ggml.scores")
    pieces = {token: float(score) for token, kind, score in zip(tokens, kinds, scores, strict=True) if kind == _NORMAL}
    return sorted(pieces, key=lambda piece: -pieces[piece])


def _normalizer(prefixed: bool) -> normalizers.Normalizer:
    spaces = normalizers.Replace(" ", SPACE)
    return normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefixed else spaces
