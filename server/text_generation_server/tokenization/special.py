"""The special tokens of a fast tokenizer: those that the other files add, and those put around texts.

Knows nothing of how text is split.
"""

from dataclasses import dataclass

import tokenizers
from tokenizers import processors

from text_generation_server.errors import UnsupportedModel
from text_generation_server.tokenization.files import AddedToken, TokenizerFiles


@dataclass(frozen=True, slots=True)
class Frame:
    """The tokens put before and after a text when special tokens are asked for."""

    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()

    def processor(self, tokenizer: tokenizers.Tokenizer) -> processors.PostProcessor:
        """The step that puts them there. Raises UnsupportedModel for a token that `tokenizer` does not have."""
        ids = {text: tokenizer.token_to_id(text) for text in (*self.before, *self.after)}
        missing = [text for text, token_id in ids.items() if token_id is None]
        if missing:
            raise UnsupportedModel(f"texts are put into {', '.join(missing)}, which the tokenizer does not have")
        single = [*self.before, "$A", *self.after]
        second = [f"{text}:1" for text in (*self.before, "$B", *self.after)]
        return processors.TemplateProcessing(single, [*single, *second], special_tokens=list(ids.items()))


def complete(tokenizer: tokenizers.Tokenizer, files: TokenizerFiles) -> None:
    """Give `tokenizer` the added tokens of the other files, with their flags, and flag those with a special role.

    Raises UnsupportedModel if a token cannot have the id it is listed with.
    """
    known = tokenizer.get_added_tokens_decoder()
    for token_id, listed in sorted(files.added.items()):
        token = _token(listed)
        if token_id not in known or (known[token_id].content == token.content and repr(known[token_id]) != repr(token)):
            tokenizer.add_tokens([token])
            _require_id(tokenizer, token.content, token_id)
    added = {token.content: token for token in tokenizer.get_added_tokens_decoder().values()}
    special = [added.get(token.content) or _token(token) for token in files.special]
    missing = [token for token in special if token.content not in added or not token.special]
    for token in missing:
        token.special = True
    tokenizer.add_special_tokens(missing)


def _token(listed: AddedToken) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(listed.content, special=listed.special, **listed.flags)


def _require_id(tokenizer: tokenizers.Tokenizer, text: str, token_id: int) -> None:
    got = tokenizer.token_to_id(text)
    if got != token_id:
        raise UnsupportedModel(
            f"the tokenizer's files list {text!r} as token {token_id}, but beside the vocabulary it is {got}: "
            "they are not of one tokenizer; copy all of them from one place"
        )
