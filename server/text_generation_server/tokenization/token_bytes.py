"""The bytes each token stands for, read off the spelling that a vocabulary gives it. Knows nothing of tokenizer files.

A decoder cannot tell: the bytes of half a character have no text.
"""

from collections.abc import Collection, Sequence

from text_generation_server.tokenization.byte_level import byte_characters

SPACE = "\u2581"
"""How SentencePiece spells a space."""


def token_bytes(spellings: Sequence[str], literal: Collection[int]) -> list[bytes]:
    """The bytes of each token, by id.

    Args:
        spellings: of every token, "" for ids that no token has.
        literal: ids of added tokens, which are spelled as they are.
    """
    alphabet = {character: byte for byte, character in enumerate(byte_characters())}
    ordinary = (text for token_id, text in enumerate(spellings) if token_id not in literal)
    if all(alphabet.keys() >= set(text) for text in ordinary):
        return [
            text.encode() if token_id in literal else bytes(alphabet[character] for character in text)
            for token_id, text in enumerate(spellings)
        ]
    return [text.encode() if token_id in literal else _piece_bytes(text) for token_id, text in enumerate(spellings)]


def _piece_bytes(piece: str) -> bytes:
    """A SentencePiece piece: text with marked spaces, or one byte as <0xNN>."""
    if len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return bytes.fromhex(piece[3:5])
    return piece.replace(SPACE, " ").encode()
