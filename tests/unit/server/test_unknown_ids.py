"""What a server says at load of a tokenizer that has more tokens than its model."""

import pytest
from loguru import logger

from text_generation_server.serve import warn_of_unknown_ids


class Tokens:
    """A tokenizer of three tokens."""

    def ids_beyond(self, vocab_size: int) -> dict[int, str]:
        return {token_id: f"<{token_id}>" for token_id in range(vocab_size, 3)}


@pytest.mark.parametrize(
    ("vocab_size", "warning"),
    [
        (3, ""),
        (1, "The tokenizer has 2 tokens beyond the 1 that the model knows, '<1>' (1) the first"),
    ],
)
def test_it_names_the_first_unknown_token(vocab_size, warning):
    said: list[str] = []
    sink = logger.add(said.append, level="WARNING", format="{message}")
    try:
        warn_of_unknown_ids(Tokens(), vocab_size)
    finally:
        logger.remove(sink)
    assert "".join(said).startswith(warning) and bool(said) == bool(warning)
