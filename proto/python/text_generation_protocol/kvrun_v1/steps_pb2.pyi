from text_generation_protocol.v3 import generate_pb2 as _generate_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StepsRequest(_message.Message):
    __slots__ = ("batch_ids", "steps")
    BATCH_IDS_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    batch_ids: _containers.RepeatedScalarFieldContainer[int]
    steps: int
    def __init__(self, batch_ids: _Optional[_Iterable[int]] = ..., steps: _Optional[int] = ...) -> None: ...

class Step(_message.Message):
    __slots__ = ("request_ids", "ids", "logprobs", "texts", "special", "generations", "batch", "forward_ns", "decode_ns", "total_ns", "concat_ns", "last")
    REQUEST_IDS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    LOGPROBS_FIELD_NUMBER: _ClassVar[int]
    TEXTS_FIELD_NUMBER: _ClassVar[int]
    SPECIAL_FIELD_NUMBER: _ClassVar[int]
    GENERATIONS_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    FORWARD_NS_FIELD_NUMBER: _ClassVar[int]
    DECODE_NS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_NS_FIELD_NUMBER: _ClassVar[int]
    CONCAT_NS_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    request_ids: _containers.RepeatedScalarFieldContainer[int]
    ids: _containers.RepeatedScalarFieldContainer[int]
    logprobs: _containers.RepeatedScalarFieldContainer[float]
    texts: _containers.RepeatedScalarFieldContainer[str]
    special: _containers.RepeatedScalarFieldContainer[int]
    generations: _containers.RepeatedCompositeFieldContainer[_generate_pb2.Generation]
    batch: _generate_pb2.CachedBatch
    forward_ns: int
    decode_ns: int
    total_ns: int
    concat_ns: int
    last: bool
    def __init__(self, request_ids: _Optional[_Iterable[int]] = ..., ids: _Optional[_Iterable[int]] = ..., logprobs: _Optional[_Iterable[float]] = ..., texts: _Optional[_Iterable[str]] = ..., special: _Optional[_Iterable[int]] = ..., generations: _Optional[_Iterable[_Union[_generate_pb2.Generation, _Mapping]]] = ..., batch: _Optional[_Union[_generate_pb2.CachedBatch, _Mapping]] = ..., forward_ns: _Optional[int] = ..., decode_ns: _Optional[int] = ..., total_ns: _Optional[int] = ..., concat_ns: _Optional[int] = ..., last: _Optional[bool] = ...) -> None: ...
