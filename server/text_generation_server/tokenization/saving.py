"""Writes a fast tokenizer as tokenizer.json in the form that old readers have too. Knows no model directory.

Routers of other makers read the file with the `tokenizers` of their time. That library writes merges as pairs since
0.20, which 0.19 and older (text-generation-inference up to 2.2) refuse; every version reads them as "left right".
"""

import json
from pathlib import Path

import tokenizers


def save_tokenizer(tokenizer: tokenizers.Tokenizer, path: Path) -> None:
    """Write `tokenizer` to `path`, for `tokenizers` 0.13 and later.

    Only where a part of a merge has a space, pairs are the only form, and 0.20 is needed.
    """
    content = json.loads(tokenizer.to_str())
    pairs: list[tuple[str, str]] = content["model"].get("merges", [])
    if pairs and all(_survives(*pair) for pair in pairs):
        content["model"]["merges"] = [" ".join(pair) for pair in pairs]
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8")


def _survives(left: str, right: str) -> bool:
    """Whether the line says which two parts it joins; one that begins as a version's does is skipped by readers."""
    return " " not in left + right and not left.startswith("#version")
