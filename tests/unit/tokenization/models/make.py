"""Makes the models of this folder and expected.json, which says how SentencePiece itself tokenises TEXTS with them.

Needs sentencepiece (0.2.3 was used), which nothing else does: pip install sentencepiece && python make.py
"""

import io
import json
from pathlib import Path
from typing import Any

import sentencepiece

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on through 1234 afternoons.",
    "def main(options):\n        return [option for option in options if option is not None]",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "敏捷的棕色狐狸跳过懒狗 きつねが犬を跳び越える",
] * 4
TEXTS = [
    "The quick brown fox",
    " leading and   inner spaces  ",
    "the dog sleeps\n\n\tfor 12 afternoons\n",
    "Zwölf große Füchse; ½ ﬁn",
    "狐狸 きつね 🙂 dog",
    "keep <tool> apart<tool>",
    "option" + " " * 6 + "None",
    "<0x4> aaaaaaa",
    "\n the\n dog",
    "",
]
RULES = "FB01\t66 69\nBD\t31 2044 32\n9\t20\n"
"""Characters to characters, all in hexadecimal: fi, one half, and the tab as a space."""

AS_LLAMA: dict[str, Any] = {
    "model_type": "bpe",
    "byte_fallback": True,
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "allow_whitespace_only_pieces": True,
    "split_digits": True,
    "vocab_size": 450,
}
MODELS: dict[str, dict[str, Any]] = {
    "bpe": AS_LLAMA | {"user_defined_symbols": ["<tool>"]},
    "bpe_without_prefix": AS_LLAMA
    | {"add_dummy_prefix": False, "user_defined_symbols": ["<tool>", *("\u2581" * n for n in range(2, 6))]},
    "unigram": {"model_type": "unigram", "vocab_size": 230, "user_defined_symbols": ["<tool>"], "rules": RULES},
    "unigram_bytes": AS_LLAMA | {"model_type": "unigram"},
}


def train(folder: Path, name: str, rules: str = "", **options: Any) -> sentencepiece.SentencePieceProcessor:
    """Write a model and open it."""
    content = io.BytesIO()
    if rules:
        path = folder / "rules.tsv"
        path.write_text(rules)
        options["normalization_rule_tsv"] = str(path)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS), model_writer=content, hard_vocab_limit=False, minloglevel=2, **options
    )
    if rules:
        path.unlink()
    (folder / f"{name}.model").write_bytes(content.getvalue())
    return sentencepiece.SentencePieceProcessor(model_proto=content.getvalue())


def main() -> None:
    """Write all files."""
    folder = Path(__file__).parent
    expected = {}
    for name, options in MODELS.items():
        model = train(folder, name, **options)
        expected[name] = [[text, model.encode(text), model.decode(model.encode(text))] for text in TEXTS]
    (folder / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")


if __name__ == "__main__":
    main()
