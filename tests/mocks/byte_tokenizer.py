"""A tokenizer whose ids are bytes, with one special token that ends a sequence."""

from collections.abc import Sequence

from mocks.mock_model import EOS, VOCAB_SIZE


class ByteTokenizer:
    """Satisfies the engine's `Tokenizer`."""

    eos_ids = frozenset({EOS})
    special_ids = frozenset({EOS})
    vocab_size = VOCAB_SIZE
    model_max_length = None

    def encode(self, text: str, truncate: int = 0, add_special_tokens: bool = True) -> list[int]:
        ids = list(text.encode())
        return ids[-truncate:] if truncate else ids

    def decode(self, ids: Sequence[int], skip_special_tokens: bool = False) -> str:
        parts, run = [], bytearray()
        for token in ids:
            if token == EOS:
                parts.append(run.decode(errors="replace"))
                run.clear()
                parts.append("" if skip_special_tokens else "</s>")
            else:
                run.append(token)
        return "".join(parts) + run.decode(errors="replace")

    def token_text(self, token_id: int) -> str:
        return self.decode([token_id])

    def token_bytes(self) -> list[bytes]:
        return [bytes([token]) for token in range(EOS)] + [b"</s>"]
