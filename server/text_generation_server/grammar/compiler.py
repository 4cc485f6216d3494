"""Compiles grammars in threads of its own and remembers them. Knows nothing of sequences, steps or masks in use."""

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock

from llguidance import LLMatcher, LLTokenizer

from text_generation_server.errors import InvalidRequest
from text_generation_server.grammar.grammar_type import GrammarType
from text_generation_server.grammar.syntax import to_library_grammar, unusable
from text_generation_server.grammar.trial import follow
from text_generation_server.grammar.vocabulary import build_vocabulary
from text_generation_server.tokenization.adapter import Tokenizer

REMEMBERED = 64
"""Compiled grammars that are kept, those used last."""

_THREADS = 2


class GrammarCompiler:
    """Grammars of one vocabulary, compiled once each; may be called from any thread.

    The vocabulary is read when the first grammar comes: half a second that most servers never need.
    trial_tokens: how far each is followed to see whether it can be, for those who only check grammars.
    """

    def __init__(self, tokenizer: Tokenizer, vocab_size: int, trial_tokens: int = 0) -> None:
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="grammar-compiler")
        self._lock = Lock()
        self._vocabulary: Future[LLTokenizer] | None = None
        self._compiled: OrderedDict[tuple[GrammarType, str], Future[LLMatcher]] = OrderedDict()
        self._trial_tokens = trial_tokens
        self._read: Callable[[], LLTokenizer] = lambda: _vocabulary(tokenizer, vocab_size)

    def start(self, kind: GrammarType, text: str) -> Future[LLMatcher]:
        """A matcher that stands at the beginning of a grammar; it belongs to all, so copy it before use.

        The future raises `InvalidRequest` when the grammar, or any grammar with this tokenizer, cannot be used.
        """
        with self._lock:
            key = kind, text
            if key not in self._compiled:
                self._vocabulary = self._vocabulary or self._pool.submit(self._read)
                self._compiled[key] = self._pool.submit(_compile, self._vocabulary, kind, text, self._trial_tokens)
                if len(self._compiled) > REMEMBERED:
                    self._compiled.popitem(last=False)
            self._compiled.move_to_end(key)
            return self._compiled[key]


def _vocabulary(tokenizer: Tokenizer, vocab_size: int) -> LLTokenizer:
    eos_ids = frozenset(token_id for token_id in tokenizer.eos_ids if token_id < vocab_size)
    if not eos_ids:
        raise InvalidRequest("this model has no end-of-sequence token, so an answer cannot end where its grammar does")
    return build_vocabulary(tokenizer.token_bytes(), eos_ids, tokenizer.special_ids, vocab_size)


def _compile(vocabulary: Future[LLTokenizer], kind: GrammarType, text: str, trial_tokens: int) -> LLMatcher:
    try:
        matcher = LLMatcher(vocabulary.result(), to_library_grammar(kind, text), log_level=0)
        if trial_tokens and not matcher.is_error():
            follow(matcher, vocabulary.result(), trial_tokens)
    except InvalidRequest:
        raise
    except BaseException as error:  # what the library's native code throws is no `Exception`
        raise unusable(str(error)) from error
    if matcher.is_error():
        raise unusable(matcher.get_error())
    return matcher
