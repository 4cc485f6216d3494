"""Which tokenizer a model directory holds, by its files and what is in them, and how each kind is loaded.

Knows the names of tokenizer classes, which are facts of the files, but no models.
"""

from pathlib import Path

import tokenizers

from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.modelfiles import read_bytes
from text_generation_server.tokenization.converted import ConvertedTokenizer, convert
from text_generation_server.tokenization.fast import FastTokenizer
from text_generation_server.tokenization.files import TokenizerFiles
from text_generation_server.tokenization.sentencepiece import sentencepiece_tokenizer
from text_generation_server.tokenization.special import Frame
from text_generation_server.tokenization.spm_file import SentencePieceModel
from text_generation_server.tokenization.tiktoken import FORMATS, is_tiktoken, tiktoken_tokenizer

_CONVERTIBLE = ("*token*", "*.model", "*.tiktoken", "vocab*", "merges.txt")
_DESCRIPTIONS = frozenset({"added_tokens.json", "special_tokens_map.json", "tokenizer_config.json"})
"""Names of files that tokenizers are made of, and of those that only describe one."""

_FLAGGED = frozenset({"CodeLlamaTokenizer", "CohereTokenizer", "GemmaTokenizer", "LlamaTokenizer"})
"""Classes for which add_bos_token and add_eos_token count more than what tokenizer.json puts around texts."""

_PLAIN_SENTENCEPIECE = frozenset(
    {"BaichuanTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer", "InternLMTokenizer", "LlamaTokenizer", "YiTokenizer"}
)
"""Classes that are a SentencePiece model, and bos and eos around texts, and no more."""


def load_backend(directory: Path, files: TokenizerFiles, trust_remote_code: bool) -> FastTokenizer | ConvertedTokenizer:
    """The tokenizer of a directory: from tokenizer.json, else from tokenizer.model, else through transformers.

    Raises:
        ModelNotFound: the directory has no tokenizer at all.
        UnsupportedModel: a file is damaged or not supported.
    """
    if (path := directory / "tokenizer.json").is_file():
        return FastTokenizer(_read_tokenizer(path), files, _flagged_frame(files))
    if (path := directory / "tokenizer.model").is_file() and (fast := _from_vocabulary(path, files)) is not None:
        return fast
    if not has_tokenizer(directory) and not files.remote_code:
        raise ModelNotFound(
            f"{directory} has no tokenizer: expected tokenizer.json, tokenizer.model, or vocab.json and merges.txt; "
            "copy the model's tokenizer files there"
        )
    return _converted(directory, files, trust_remote_code)


def has_tokenizer(directory: Path) -> bool:
    """Whether there are files that a tokenizer is made of."""
    found = {path.name for pattern in _CONVERTIBLE for path in directory.glob(pattern)}
    return not found <= _DESCRIPTIONS


def _converted(directory: Path, files: TokenizerFiles, trust_remote_code: bool) -> FastTokenizer | ConvertedTokenizer:
    try:
        converted = convert(directory, trust_remote_code)
    except UnsupportedModel as error:
        if trust_remote_code or not files.remote_code:
            raise
        raise UnsupportedModel(
            f"the tokenizer of {directory} is code in that directory ({files.tokenizer_class}): "
            "read it, and start with --trust-remote-code to run it"
        ) from error
    return FastTokenizer(converted, files) if isinstance(converted, tokenizers.Tokenizer) else converted


def _read_tokenizer(path: Path) -> tokenizers.Tokenizer:
    content = read_bytes(path)
    try:
        return tokenizers.Tokenizer.from_str(content.decode())
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # the library raises plain Exception, and where it panics, not even that
        raise UnsupportedModel(f"{path} is not a tokenizer ({error}); download or export the model again") from error


def _flagged_frame(files: TokenizerFiles) -> Frame | None:
    """What is put around texts where the flags of tokenizer_config.json say it."""
    if files.tokenizer_class not in _FLAGGED or (files.add_bos is None and files.add_eos is None):
        return None
    return _bos_eos_frame(files, files.bos, files.eos)


def _bos_eos_frame(files: TokenizerFiles, bos: str | None, eos: str | None) -> Frame:
    """By the flags, which are bos and no eos where they are missing; a role without a token is left out."""
    before = (bos,) if bos and files.add_bos is not False else ()
    after = (eos,) if eos and files.add_eos else ()
    return Frame(before, after)


def _from_vocabulary(path: Path, files: TokenizerFiles) -> FastTokenizer | None:
    """The tokenizer that tokenizer.model holds; None if its class does more than is known here."""
    data = read_bytes(path)
    try:
        if is_tiktoken(data):
            known = FORMATS.get(files.tokenizer_class or "")
            return FastTokenizer(tiktoken_tokenizer(data, known.words), files, known.frame) if known else None
        if files.tokenizer_class in _PLAIN_SENTENCEPIECE or (files.tokenizer_class is None and not files.remote_code):
            return _from_sentencepiece(SentencePieceModel.read(data), files)
    except ValueError as error:
        raise UnsupportedModel(f"{path} cannot be used: {error}; download the model again if it is damaged") from error
    return None


def _from_sentencepiece(model: SentencePieceModel, files: TokenizerFiles) -> FastTokenizer:
    """Files that do not say `legacy` are from before there was a choice."""
    tokenizer = sentencepiece_tokenizer(model, every_part=files.legacy is not False)
    frame = _bos_eos_frame(files, files.bos or model.text(model.bos), files.eos or model.text(model.eos))
    return FastTokenizer(tokenizer, files, frame)
