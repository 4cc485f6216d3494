"""A text that has at least so many tokens; the shard cuts it to the exact number. Knows no protocol."""

from pathlib import Path

from tokenizers import Tokenizer

from text_generation_benchmark.errors import BenchmarkError

_TEXT = (
    "A river is never the same twice, yet it keeps its name from the spring to the sea. It carries sand and stones, "
    "turns mills, feeds fields, and parts two towns that share one bridge. In winter the banks are white and quiet; "
    "in summer children swim where the water is slow, and old men fish and talk about how much larger fish used to be. "
)
_SPARE_TOKENS = 8
"""What may be lost where the cut text is tokenized again and its first tokens merge differently."""


def prompt_of_words(tokens: int) -> str:
    """A text of more than `tokens` words, each of which is at least a token in any vocabulary."""
    words = _TEXT.split()
    return " ".join(words[i % len(words)] for i in range(tokens + _SPARE_TOKENS))


def prompt_of_tokens(tokenizer_name: str, revision: str, tokens: int) -> str:
    """A text of a few more than `tokens` tokens in the vocabulary of a model, so that little is left to cut.

    tokenizer_name: a model's directory, a tokenizer.json, or a hub id. Raises BenchmarkError.
    """
    tokenizer = read_tokenizer(_find(tokenizer_name, revision), "--tokenizer-name")
    wanted = tokens + _SPARE_TOKENS
    once = len(tokenizer.encode(_TEXT, add_special_tokens=False).ids)
    ids = tokenizer.encode(_TEXT * (wanted // once + 2), add_special_tokens=False).ids
    text: str = tokenizer.decode(ids[-wanted:], skip_special_tokens=False)
    return text


def read_tokenizer(path: Path, flag: str) -> Tokenizer:
    """A tokenizer.json, without cutting and padding. Raises BenchmarkError, which says to leave `flag` out."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise BenchmarkError(f"{path} is not a tokenizer that can be read ({error}); leave {flag} out") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _find(name: str, revision: str) -> Path:
    place = Path(name)
    if place.is_file():
        return place
    if place.is_dir():
        if (place / "tokenizer.json").is_file():
            return place / "tokenizer.json"
        raise BenchmarkError(f"{place} has no tokenizer.json; leave --tokenizer-name out to send words instead")
    from huggingface_hub import hf_hub_download  # slow to import, and most calls name a directory

    try:
        return Path(hf_hub_download(name, "tokenizer.json", revision=revision))
    except (OSError, ValueError) as error:  # the library's own errors are of these kinds
        raise BenchmarkError(
            f"--tokenizer-name {name} is neither here nor to be had from the hub ({error}); "
            "name the model's directory, or leave the option out"
        ) from error
