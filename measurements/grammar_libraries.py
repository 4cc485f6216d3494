"""Grammar libraries behind one interface, so that the benchmark can compare them. Only the ones named are imported."""

import importlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from llguidance import LLExecutor, LLMatcher

from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.grammar.syntax import to_library_grammar
from text_generation_server.grammar.vocabulary import build_vocabulary


@dataclass(frozen=True, slots=True)
class Case:
    """A grammar, and a text it accepts."""

    name: str
    schema: dict[str, Any] | None
    regex: str
    text: str


class Library(Protocol):
    """A grammar library over one vocabulary. States are its own objects, masks [rows, ceil(vocab / 32)] int32."""

    def compile(self, case: Case) -> Any:
        """A state at the beginning of the grammar."""

    def copy(self, state: Any) -> Any:
        """Another state at the same place."""

    def fill(self, states: list[Any], masks: torch.Tensor) -> None:
        """One row of the masks for each state."""

    def advance(self, state: Any, token: int) -> None:
        """Go past a token that the mask allows."""


class LlGuidance:
    """llguidance: derivatives of regular expressions and an Earley parser, nothing computed before it is needed."""

    def __init__(self, vocabulary: list[bytes], eos: int) -> None:
        self._tokenizer = build_vocabulary(vocabulary, frozenset({eos}), frozenset({eos}), len(vocabulary))
        self._executor = LLExecutor()

    def compile(self, case: Case) -> Any:
        """As the protocol says."""
        kind = GrammarType.JSON if case.schema else GrammarType.REGEX
        text = json.dumps(case.schema) if case.schema else case.regex
        return LLMatcher(self._tokenizer, to_library_grammar(kind, text), log_level=0)

    def copy(self, state: Any) -> Any:
        """As the protocol says."""
        return state.deep_copy()

    def fill(self, states: list[Any], masks: torch.Tensor) -> None:
        """As the protocol says."""
        rows = [(state, row) for row, state in enumerate(states)]
        self._executor.unsafe_compute_mask_ptr(rows, masks.data_ptr(), masks.shape[1] * 4, len(rows))

    def advance(self, state: Any, token: int) -> None:
        """As the protocol says."""
        assert state.consume_token(token)


class XGrammar:
    """xgrammar: a pushdown automaton, with masks of the tokens that need no stack computed when compiling."""

    def __init__(self, vocabulary: list[bytes], eos: int) -> None:
        xgrammar = importlib.import_module("xgrammar")
        info = xgrammar.TokenizerInfo(vocabulary, xgrammar.VocabType.RAW, stop_token_ids=[eos])
        self._compiler = xgrammar.GrammarCompiler(info, cache_enabled=False, max_threads=2)
        self._matcher = xgrammar.GrammarMatcher
        self._batch = xgrammar.BatchGrammarMatcher()

    def compile(self, case: Case) -> Any:
        """As the protocol says."""
        if case.schema:
            compiled = self._compiler.compile_json_schema(json.dumps(case.schema))
        else:
            compiled = self._compiler.compile_regex(case.regex)
        return compiled, self._matcher(compiled)

    def copy(self, state: Any) -> Any:
        """As the protocol says."""
        return state[0], self._matcher(state[0])

    def fill(self, states: list[Any], masks: torch.Tensor) -> None:
        """As the protocol says."""
        if len(states) == 1:
            states[0][1].fill_next_token_bitmask(masks)
        else:
            self._batch.batch_fill_next_token_bitmask([matcher for _, matcher in states], masks)

    def advance(self, state: Any, token: int) -> None:
        """As the protocol says."""
        assert state[1].accept_token(token)


class OutlinesCore:
    """outlines-core: an automaton over the vocabulary, computed whole when compiling."""

    def __init__(self, vocabulary: list[bytes], eos: int) -> None:
        outlines_core = importlib.import_module("outlines_core")
        ids: dict[bytes, list[int]] = {}
        for token_id, text in enumerate(vocabulary):
            if text and token_id != eos:
                ids.setdefault(text, []).append(token_id)
        self._library = outlines_core
        self._vocabulary = outlines_core.Vocabulary(eos, ids)

    def compile(self, case: Case) -> Any:
        """As the protocol says."""
        schema = case.schema
        regex = self._library.json_schema.build_regex_from_schema(json.dumps(schema)) if schema else case.regex
        index = self._library.Index(regex, self._vocabulary)
        return index, self._library.Guide(index)

    def copy(self, state: Any) -> Any:
        """As the protocol says."""
        return state[0], self._library.Guide(state[0])

    def fill(self, states: list[Any], masks: torch.Tensor) -> None:
        """As the protocol says."""
        for row, (_, guide) in enumerate(states):
            guide.write_mask_into(masks[row].data_ptr(), masks.shape[1], 4)

    def advance(self, state: Any, token: int) -> None:
        """As the protocol says."""
        state[1].advance(token, return_tokens=False)


LIBRARIES: dict[str, type[Any]] = {"llguidance": LlGuidance, "xgrammar": XGrammar, "outlines-core": OutlinesCore}
