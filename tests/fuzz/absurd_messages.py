"""Messages of any type with values that no router sends, as plain dictionaries. Knows field types, and a few names."""

import math
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

Values = dict[str, Any]

HUGE = [2**31 - 1, 2**31, 2**32 - 1]
HUGE_ID = [2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1]
FLOATS = [math.nan, math.inf, -math.inf, 0.0, -0.0, 1.0, 0.5, -1.0, 2.0, 1e-45, 1e-38, 3e38, -3e38]
TEXTS = ["hello", "h", "", "hello world", "\x00", "é🙂\u2028", "<s>", "</s>", "{}", "x" * 300, "y" * 5000]
GRAMMARS = [
    "",
    "[a-z]{3}",
    "(",
    "(((((" * 60,
    "a{1000000}",
    "((a{0,99}){0,99}){0,99}",
    r"\p{L}+(?=x)\1",
    "{}",
    '{"type": "object", "properties": {"n": {"type": "integer"}}}',
    '{"$ref": "#"}',
    '{"type": 7}',
    '{"enum": []}',
    '{"minLength": 1e400}',
    "[" * 2000,
    '{"a":' * 900,
    "null",
    "NaN",
    "\x00",
    'start: "a" start',
]

_numbers = st.integers(0, 5) | st.sampled_from([16, 63, 64, 255, 256, 257, 511, 512, *HUGE])
_few = st.just(0) | st.integers(0, 3)
_texts = st.sampled_from(TEXTS) | st.text(max_size=12)
_slots = st.one_of(
    st.builds(lambda first, count: list(range(first, first + count)), st.integers(0, 500), st.integers(1, 40)),
    st.lists(st.integers(0, 511) | _numbers, max_size=30),
    st.builds(lambda slot, count: [slot] * count, _numbers, st.integers(1, 3000)),
)


def _cached(batch_ids: list[int]) -> list[Values]:
    return [{"id": batch_id} for batch_id in batch_ids]


NAMED: dict[str, SearchStrategy[Any]] = {
    "Batch.id": _few,
    "CachedBatch.id": _few,
    "DecodeRequest.batches": st.just([0]).map(_cached) | st.lists(_few, max_size=3).map(_cached),
    "ClearCacheRequest.id": _few,
    "FilterBatchRequest.batch_id": _few,
    "FilterBatchRequest.request_ids": st.lists(_few | st.sampled_from(HUGE_ID), max_size=6),
    "NextTokenChooserParameters.grammar": st.just("") | st.sampled_from(GRAMMARS) | _texts,
    "NextTokenChooserParameters.grammar_type": st.sampled_from([0, 1, 2, 2, 3, -1, 2**31 - 1]),
    "Request.id": _few | st.sampled_from(HUGE_ID),
    "Request.slots": _slots,
    "Request.truncate": st.sampled_from([0, 0, 0, 1, 2, 2**32 - 1]),
    "StoppingCriteriaParameters.max_new_tokens": st.integers(1, 8) | st.integers(2, 8) | _numbers,
    "StoppingCriteriaParameters.stop_sequences": st.lists(_texts, max_size=3)
    | st.builds(lambda text, count: [text] * count, _texts, st.integers(0, 300)),
}
"""Values of fields by message and field: near enough to what is served that some of it is."""

USUAL = {"batch", "batches", "inputs", "max_new_tokens", "request_ids", "requests", "stopping_parameters"}
"""Fields without which nothing is served: mostly there."""


def messages(descriptor: Descriptor) -> SearchStrategy[Values]:
    """Constructor arguments of a message of this type, every field absent at times."""
    fields = {field.name: _values(descriptor, field) for field in descriptor.fields}
    usual = {name: fields.pop(name) for name in list(fields) if name in USUAL}
    served = st.fixed_dictionaries(usual, optional=fields)
    return st.integers(0, 4).flatmap(lambda n: served if n else st.fixed_dictionaries({}, optional=usual | fields))


def _values(descriptor: Descriptor, field: FieldDescriptor) -> SearchStrategy[Any]:
    named = NAMED.get(f"{descriptor.name}.{field.name}")
    if named is not None:
        return named
    if field.message_type:
        one: SearchStrategy[Any] = messages(field.message_type)
    else:
        one = _BYTES if field.type == FieldDescriptor.TYPE_BYTES else _SCALARS[field.cpp_type]
    return st.lists(one, min_size=field.name in USUAL, max_size=4) if isinstance(field.default_value, list) else one


_BYTES = st.binary(max_size=20)

_SCALARS: dict[int, SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_UINT32: _numbers,
    FieldDescriptor.CPPTYPE_UINT64: _numbers | st.sampled_from(HUGE_ID),
    FieldDescriptor.CPPTYPE_FLOAT: st.sampled_from(FLOATS) | st.floats(width=32),
    FieldDescriptor.CPPTYPE_BOOL: st.booleans(),
    FieldDescriptor.CPPTYPE_ENUM: st.integers(-1, 4),
    FieldDescriptor.CPPTYPE_STRING: _texts,
}
