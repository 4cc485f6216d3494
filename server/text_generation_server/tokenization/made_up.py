"""A tokenizer for models that have none: a token a byte, and fillers up to the vocabulary's size. Knows no files."""

import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from text_generation_server.tokenization.byte_level import byte_characters

BYTES = 256


def made_up_tokenizer(vocab_size: int) -> tokenizers.Tokenizer:
    """Token n is byte n, and from 256 on the text " n", which no text is cut into: n bytes are always n tokens.

    vocab_size: 256 or more.
    """
    space = byte_characters()[ord(" ")]
    spellings = [*byte_characters(), *(f"{space}{token}" for token in range(BYTES, vocab_size))]
    vocabulary = {spelling: token for token, spelling in enumerate(spellings)}
    tokenizer = tokenizers.Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
