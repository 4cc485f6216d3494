"""What byte-level vocabularies have in common: a printable character for each byte, and words cut apart before merging.

Knows no vocabulary and no file.
"""

from tokenizers import Regex, pre_tokenizers

LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""The pattern of words that Llama 3 and GLM-4 share: numbers in threes."""

QWEN2_WORDS = LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")
"""The same with every digit apart."""


def byte_characters() -> tuple[str, ...]:
    """The printable character that stands for each byte (Radford et al., 2019)."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(0x100) if byte not in printable]
    return tuple(chr(byte if byte in printable else 0x100 + others.index(byte)) for byte in range(0x100))


def words_as_bytes(pattern: str) -> pre_tokenizers.PreTokenizer:
    """Cuts text into words of this pattern, spelled in byte characters."""
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
