"""SentencePiece BPE as GGUF files hold it (tokenizer.ggml.model "llama"): pieces with scores, and no list of merges.

SentencePiece joins the neighbours whose union has the highest score, again and again. The same result comes from merges
in the order of those scores: every way to cut a piece into two pieces is one merge.
"""

from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE

from text_generation_server.weights.gguf.container import Container

_SPACE = "\u2581"
_NORMAL, _UNKNOWN = 1, 2


def sentencepiece_tokenizer(gguf: Container) -> Tokenizer:
    """The tokenizer without its special tokens; characters outside the vocabulary become byte tokens."""
    tokens = [str(token) for token in gguf.array("tokenizer.ggml.tokens")]
    kinds = gguf.array("tokenizer.ggml.token_type")
    vocabulary = {token: token_id for token_id, token in enumerate(tokens)}
    unknown = next((token for token, kind in zip(tokens, kinds, strict=True) if kind == _UNKNOWN), None)
    model = BPE(vocabulary, _merges(gguf, tokens), unk_token=unknown, fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    prefixed = bool(gguf.metadata.get("tokenizer.ggml.add_space_prefix", True))
    tokenizer.normalizer = _normalizer(prefixed)
    tokenizer.decoder = _decoder(prefixed)
    return tokenizer


def _merges(gguf: Container, tokens: list[str]) -> list[tuple[str, str]]:
    """Every cut of every normal piece into two, the pieces with the highest score first."""
    kinds, scores = gguf.array("tokenizer.ggml.token_type"), gguf.array("tokenizer.ggml.scores")
    pieces = {token: float(score) for token, kind, score in zip(tokens, kinds, scores, strict=True) if kind == _NORMAL}
    ranked = sorted(pieces, key=lambda piece: -pieces[piece])
    cuts = ((piece[:at], piece[at:]) for piece in ranked for at in range(1, len(piece)))
    return [(left, right) for left, right in cuts if left in pieces and right in pieces]


def _normalizer(prefixed: bool) -> normalizers.Normalizer:
    spaces = normalizers.Replace(" ", _SPACE)
    return normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefixed else spaces


def _decoder(prefixed: bool) -> decoders.Decoder:
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    return decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps)
