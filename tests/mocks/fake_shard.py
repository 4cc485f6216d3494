"""A shard without a model: its cache holds token ids, and its next token is a hash of all it reads there.

A wrong slot therefore changes the text at once. Everything a router must not do is noted in `violations`.
"""

import asyncio
import json
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import grpc
import tokenizers

from mocks.fake_adapters import FakeAdapters
from mocks.fake_steps import FakeSteps
from text_generation_protocol.kvrun_v1.adapters_pb2_grpc import add_AdaptersServicer_to_server
from text_generation_protocol.kvrun_v1.steps_pb2_grpc import add_StepsServicer_to_server
from text_generation_protocol.v3 import generate_pb2 as pb
from text_generation_protocol.v3.generate_pb2_grpc import add_TextGenerationServiceServicer_to_server
from text_generation_server.images.content import content_ids
from text_generation_server.images.placing import ImagePlacer, load_placer
from text_generation_server.rpc.wire_v3 import EXTENSIONS, IMAGES
from text_generation_server.tokenization.adapter import TokenizerAdapter

PROBE_ID = 2**64 - 1
BOS, EOS = "<s>", "</s>"

CHAT_TEMPLATE = (
    "<s>{% for message in messages %}"
    "{% if message.role == 'nobody' %}{{ raise_exception('nobody speaks') }}{% endif %}"
    "[{{ message.role }}]{{ message.content }}{{ mark }}"
    "{% endfor %}{% if add_generation_prompt %}[assistant]{% endif %}"
)
"""What a chat becomes: each role in brackets before its text."""


def save_tokenizer(
    directory: Path, template: str | None = CHAT_TEMPLATE, added: Sequence[str] = ()
) -> tokenizers.Tokenizer:
    """A tokenizer of bytes, which puts a token before every text, as a model directory. added: special tokens."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: i for i, character in enumerate(alphabet)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in (BOS, EOS, *added)])
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, len(alphabet))]
    )
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"eos_token": EOS, "chat_template": template}))
    return tokenizer


def next_letter(ids: Sequence[int]) -> str:
    """The text that follows a sequence of ids: a letter. Those of images' contents are long and negative."""
    return chr(ord("a") + zlib.crc32(b"".join((token % 2**16).to_bytes(2, "big") for token in ids)) % 26)


@dataclass(eq=False)
class Row:
    """A request in a batch."""

    request: Any
    prompt: list[int]
    computed: int
    planned: int
    outputs: list[int] = field(default_factory=list)
    text: str = ""

    @property
    def prefilling(self) -> bool:
        return self.computed < len(self.prompt)


@dataclass
class FakeShard:
    """The servicer, its switches, and what it saw.

    keep_finished: leave finished requests in the batch, as text-generation-inference does. eos_after: tokens after
    which every request ends by itself. pad: appended to every token's text. step_s: how long a step takes.
    resuming: requests may be resumed. extensions: what it reads of requests that only ours know. alive: whether Health
    succeeds. forget: drop all requests after the next step. running: cleared, it holds calls back.
    failures: method → message with which its next call fails, and failure_code how: INTERNAL
    is what was not expected. fail_after: prompt → tokens after which it fails alone.
    prefill_room: told beside every batch, unless None. loads: its calls for adapters, None for none.
    says: the texts of every answer's tokens, instead of letters; `special`: which of them are special tokens.
    images: whether it takes them, by the files of the directory where its socket is.
    max_batch_size: requests that it says it has room for. pushing: decodes need not be asked for one by one.
    """

    tokenizer: tokenizers.Tokenizer
    socket: Path
    rank: int = 0
    world_size: int = 1
    num_slots: int = 4096
    block_size: int = 1
    vocab_size: int | None = None
    chunking: bool = True
    prefix_caching: bool = True
    adapters: Sequence[str] = ()
    loads: FakeAdapters | None = None
    max_total_tokens: int | None = None
    max_batch_size: int | None = None
    keep_finished: bool = False
    eos_after: int | None = None
    pad: str = ""
    step_s: float = 0.0
    alive: bool = True
    forget: bool = False
    resuming: bool = True
    prefill_room: int | None = None
    says: Sequence[str] = ()
    special: Sequence[str] = ()
    extensions: Sequence[str] = EXTENSIONS
    images: bool = False
    pushing: bool = True

    def __post_init__(self) -> None:
        self.running = asyncio.Event()
        self.running.set()
        self.violations: list[str] = []
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[tuple[str, dict[str, Any]]] = []
        self.failures: dict[str, str] = {}
        self.failure_code = grpc.StatusCode.INTERNAL
        self.fail_after: dict[str, int] = {}
        self.max_prefill_tokens = 0
        self.warmup: Any = None
        self.batches: dict[int, list[Row]] = {}
        self.slots: dict[int, int] = {}
        self.pushed = FakeSteps(self)
        self.pushing &= not self.keep_finished  # who does that is another's
        self._seen: set[int] = set()
        self._busy = False
        self._placer: ImagePlacer | None = None
        self._server: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        """Serve for as long as a block lasts, however it ends.

        A server of gRPC's that nobody has stopped when its event loop closes never ends: its finaliser waits for calls
        that only the loop could finish, and with it the process.
        """
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.running.set()
        await self.stop()

    async def start(self) -> None:
        """Serve on `socket`-rank."""
        directory = self.socket.parent
        self._placer = load_placer(directory, TokenizerAdapter.load(directory)) if self.images else None
        self._server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
        add_TextGenerationServiceServicer_to_server(self, self._server)
        if self.pushing:
            add_StepsServicer_to_server(self.pushed, self._server)
        if self.loads is not None:
            add_AdaptersServicer_to_server(self.loads, self._server)
        self._server.add_insecure_port(f"unix:{self.socket}-{self.rank}")
        await self._server.start()

    async def stop(self) -> None:
        """Hang up on everybody."""
        if self._server is not None:
            await self._server.stop(None)
            self._server = None

    def steps(self) -> list[str]:
        """The names of the calls, in order."""
        return [name for name, _ in self.calls]

    def live_rows(self) -> list[Row]:
        """Every request that the shard still holds, finished or not."""
        return [row for rows in self.batches.values() for row in rows]

    # -- the calls

    async def ServiceDiscovery(self, _: Any, __: Any) -> Any:
        return pb.ServiceDiscoveryResponse(urls=[f"unix://{self.socket}-{rank}" for rank in range(self.world_size)])

    async def Info(self, _: Any, __: Any) -> Any:
        return pb.InfoResponse(
            dtype="torch.float32",
            device_type="cpu",
            support_chunking=self.chunking,
            use_prefix_caching=self.prefix_caching and not self.adapters,
            prefix_caching_by_adapter=self.prefix_caching and bool(self.adapters),
            adapter_ids=self.adapters,
            attention_impl="paged",
            block_size=self.block_size,
            support_resuming=self.resuming,
            tells_prefill_room=self.prefill_room is not None,
            vocab_size=self.vocab_size,
            pushes_steps=self.pushing,
            request_extensions=[*self.extensions, *([IMAGES] if self.images else [])],
        )

    async def Health(self, _: Any, context: Any) -> Any:
        self.calls.append(("Health", None))
        if not self.alive:
            await context.abort(grpc.StatusCode.INTERNAL, "the engine thread is gone")
        return pb.HealthResponse()

    async def Warmup(self, request: Any, _: Any) -> Any:
        self.warmup = request
        self.max_prefill_tokens = request.max_prefill_tokens
        total = request.max_total_tokens or self.max_total_tokens or self.num_slots
        return pb.WarmupResponse(
            max_supported_total_tokens=self.num_slots,
            max_input_tokens=request.max_input_tokens or total - 1,
            max_total_tokens=total,
            max_batch_size=self.max_batch_size,
        )

    async def ClearCache(self, request: Any, context: Any) -> Any:
        batch_id = request.id if request.HasField("id") else None
        async with self._turn("ClearCache", batch_id, context):
            if batch_id is None:
                self.batches.clear()
            self.batches.pop(batch_id or 0, None)
        return pb.ClearCacheResponse()

    async def FilterBatch(self, request: Any, context: Any) -> Any:
        keep = list(request.request_ids)
        async with self._turn("FilterBatch", keep, context):
            rows = {row.request.id: row for row in self.batches[request.batch_id]}
            self._check(bool(keep), "FilterBatch without a request to keep")
            self.batches[request.batch_id] = [rows[request_id] for request_id in keep]
        return pb.FilterBatchResponse(batch=self._cached(request.batch_id))

    async def Prefill(self, request: Any, context: Any) -> Any:
        batch = request.batch
        async with self._turn("Prefill", request, context):
            if batch.id == PROBE_ID:
                return self._probe(batch)
            self._check(batch.size == len(batch.requests) > 0, "a batch's size is not its number of requests")
            joined = request.HasField("cached_batch")
            self._check(self.chunking or not joined, "a cached batch for a shard that does not chunk")
            batch_id = request.cached_batch.id if joined else batch.id
            rows = self.batches.pop(batch_id) if joined else []
            self._check(not (self.chunking and self.batches), "a batch was left out of a prefill")
            for position, wire in enumerate(batch.requests):
                rows.append(self._admit(wire, rows, last=position == len(batch.requests) - 1))
            return await self._step(pb.PrefillResponse, batch_id, rows, joined)

    async def Decode(self, request: Any, context: Any) -> Any:
        ids = [batch.id for batch in request.batches]
        async with self._turn("Decode", ids, context):
            self._check(set(ids) == set(self.batches), f"Decode of {ids}, cached are {list(self.batches)}")
            rows = [row for batch_id in ids for row in self.batches.pop(batch_id)]
            listed = [request_id for batch in request.batches for request_id in batch.request_ids]
            self._check([row.request.id for row in rows] == listed, "the batch did not come back as it was returned")
            return await self._step(pb.DecodeResponse, ids[0], rows, len(ids) > 1)

    # -- what they do

    def _turn(self, name: str, detail: Any, context: Any) -> "_Turn":
        return _Turn(self, name, detail, context)

    def _check(self, kept: bool, rule: str) -> None:
        if not kept:
            self.violations.append(rule)

    def _probe(self, batch: Any) -> Any:
        self._check(list(batch.requests[0].slots) == [0] == list(batch.requests[0].blocks), "the probe leaves slot 0")
        tokens = pb.Tokens(ids=[1], logprobs=[0.0], texts=["x"], is_special=[False])
        return pb.PrefillResponse(
            generations=[pb.Generation(request_id=PROBE_ID, tokens=tokens, generated_text=pb.GeneratedText(text="x"))]
        )

    def _admit(self, wire: Any, before: list[Row], last: bool) -> Row:
        """Check a request and take it into the batch."""
        self._check(wire.id not in self._seen, f"request id {wire.id} came twice")
        self._seen.add(wire.id)
        told = {
            field.name for part in (wire, wire.parameters, wire.stopping_parameters) for field, _ in part.ListFields()
        }
        self._check(told & set(EXTENSIONS) <= set(self.extensions), "a field that this shard did not say it knows")
        prompt = self._prompt(wire)
        prompt = prompt[:1] + prompt[1:][-(wire.truncate - 1) :] if len(prompt) > wire.truncate else prompt
        prompt += wire.generated_ids
        self._check(self.resuming or not (wire.resumable or wire.generated_ids), "this shard does not resume requests")
        slots, size = list(wire.slots), self.block_size
        self._check(len(slots) == len(prompt) + wire.stopping_parameters.max_new_tokens - 1, "wrong number of slots")
        in_blocks = [wire.blocks[i // size] * size + i % size for i in range(len(slots))]
        self._check(slots == in_blocks, "slots do not follow the blocks")
        self._check(all(size <= slot < self.num_slots for slot in slots), "block 0 or no block at all")
        fresh = set(slots[wire.cache_len :])
        taken = {slot for row in [*before, *self.live_rows()] for slot in row.request.slots}
        self._check(len(fresh) == len(slots) - wire.cache_len and not fresh & taken, "a slot has two owners")
        self._check(wire.cache_len < len(prompt), "nothing of the prompt is left to compute")
        self._check(wire.cache_len == 0 or self.prefix_caching, "a cached prefix without prefix caching")
        self._check(not wire.prefill_logprobs or wire.cache_len == 0, "log-probabilities of a cached prompt")
        held = [self.slots.get(slot) for slot in slots[: wire.cache_len]]
        self._check(held == prompt[: wire.cache_len], "the cached prefix is not in its slots")
        self._check(wire.parameters.temperature > 0 < wire.parameters.top_p, "parameters are not neutral")
        self._check(wire.truncate > 0, "truncation left open")
        rest = len(prompt) - wire.cache_len
        if wire.HasField("chunk_len"):
            self._check(self.chunking and last and 1 <= wire.chunk_len < rest, f"chunk of {wire.chunk_len} of {rest}")
        text = self.tokenizer.decode(wire.generated_ids)
        return Row(wire, prompt, wire.cache_len, wire.chunk_len if wire.HasField("chunk_len") else rest, text=text)

    def _prompt(self, wire: Any) -> list[int]:
        texts, files = [""], []
        for chunk in wire.input_chunks.chunks:
            if chunk.HasField("image"):
                files.append(chunk.image.data)
                texts.append("")
            else:
                texts[-1] += chunk.text
        self._check("".join(texts) == wire.inputs, "chunks and inputs differ")
        if wire.prompt_ids:
            return list(wire.prompt_ids)
        if not files or self._placer is None:
            self._check(not files, "an image for a shard that takes none")
            return list(self.tokenizer.encode(wire.inputs, add_special_tokens=wire.add_special_tokens).ids)
        ids, images = self._placer.encode(texts, files, wire.truncate, wire.add_special_tokens)
        return list(content_ids(ids, [(placed.image.digest, placed.positions) for placed in images]))

    async def _step(self, response: Any, batch_id: int, rows: list[Row], joined: bool) -> Any:
        """One step of all rows."""
        self._check(sum(row.planned for row in rows) <= self.max_prefill_tokens + len(rows), "the step is too long")
        if self.step_s:
            await asyncio.sleep(self.step_s)
        advanced = [self._advance(row) for row in rows]
        generations = [generation for generation in advanced if generation is not None]
        finished = {generation.request_id for generation in generations if generation.HasField("generated_text")}
        unfinished = [row for row in rows if row.request.id not in finished and not self.forget]
        if unfinished:
            self.batches[batch_id] = rows if self.keep_finished else unfinished
            self._plan(self.batches[batch_id])
        mine = [one for one in generations if one.request_id % self.world_size == self.rank]
        return response(
            generations=mine,
            batch=self._cached(batch_id) if unfinished else None,
            forward_ns=3_000_000,
            decode_ns=1_000_000,
            total_ns=5_000_000,
            concat_ns=1_000 if joined else None,
        )

    def _plan(self, rows: list[Row]) -> None:
        budget = self.max_prefill_tokens - (len(rows) - 1)
        for row in reversed(rows):
            row.planned = max(min(len(row.prompt) - row.computed, budget), 1)
            budget -= row.planned if row.prefilling else 0

    def _advance(self, row: Row) -> Any | None:
        ids = (row.prompt + row.outputs)[row.computed : row.computed + row.planned]
        for token in ids:
            self.slots[row.request.slots[row.computed]] = token
            row.computed += 1
        return None if row.prefilling else self._generate(row)

    def _generate(self, row: Row) -> Any:
        wire, first = row.request, not row.outputs and not row.request.generated_ids
        if self.fail_after.get(wire.inputs) == len(row.outputs):
            return _failed(wire.id)
        read = [self.slots[slot] for slot in list(wire.slots)[: row.computed]]
        letter = next_letter(read)
        said = self.says[len(wire.generated_ids) + len(row.outputs)] if self.says else letter + self.pad
        special = said in self.special
        row.outputs.append(self.tokenizer.token_to_id(letter))
        row.text += "" if special else said
        logprob = -(ord(letter) - ord("a") + 1) / 10
        token = {"ids": [row.outputs[-1]], "logprobs": [logprob], "texts": [said], "is_special": [special]}
        return pb.Generation(
            request_id=wire.id,
            tokens=pb.Tokens(**token),
            top_tokens=[_top(wire.top_n_tokens)] if wire.top_n_tokens else [],
            prefill_tokens=self._prompt_tokens(row) if wire.prefill_logprobs and first else None,
            prefill_top_tokens=self._prompt_tops(row) if wire.prefill_logprobs and first else [],
            generated_text=self._end(row),
        )

    def _prompt_tokens(self, row: Row) -> Any:
        texts = [self.tokenizer.decode([token], skip_special_tokens=False) for token in row.prompt]
        return pb.Tokens(ids=row.prompt, logprobs=[math.nan] + [-0.5] * (len(texts) - 1), texts=texts)

    def _prompt_tops(self, row: Row) -> list[Any]:
        wanted = row.request.prefill_top_n_tokens
        return [_top(wanted if place else 0) for place in range(len(row.prompt))] if wanted else []

    def _end(self, row: Row) -> Any | None:
        stopping = row.request.stopping_parameters
        generated = len(row.request.generated_ids) + len(row.outputs)
        stay_over = len(row.outputs) >= stopping.max_new_tokens
        if stay_over and not row.request.resumable:
            reason = pb.FINISH_REASON_LENGTH
        elif generated >= (len(self.says) or self.eos_after or math.inf):
            reason = pb.FINISH_REASON_EOS_TOKEN
        elif any(row.text.endswith(stop) for stop in stopping.stop_sequences):
            reason = pb.FINISH_REASON_STOP_SEQUENCE
        elif stay_over:
            return pb.GeneratedText(generated_tokens=generated, finish_reason=pb.FINISH_REASON_LENGTH)
        else:
            return None
        seed = row.request.parameters.seed if row.request.parameters.do_sample else None
        return pb.GeneratedText(text=row.text, generated_tokens=generated, finish_reason=reason, seed=seed)

    def _cached(self, batch_id: int) -> Any:
        rows = self.batches[batch_id]
        return pb.CachedBatch(
            id=batch_id,
            request_ids=[row.request.id for row in rows],
            size=len(rows),
            max_tokens=sum(len(row.request.slots) for row in rows),
            current_tokens=sum(row.planned for row in rows),
            prefill_room=self.prefill_room or 0,
        )


def _failed(request_id: int) -> Any:
    """The end of a request that fails alone."""
    return pb.Generation(
        request_id=request_id,
        tokens=pb.Tokens(ids=[0], logprobs=[0.0], texts=[""], is_special=[True]),
        generated_text=pb.GeneratedText(
            text="no room", generated_tokens=1, finish_reason=pb.FINISH_REASON_EOS_TOKEN, failure="no room"
        ),
    )


def _top(count: int) -> Any:
    ids = range(count)
    return pb.Tokens(ids=ids, logprobs=[-0.1 * i for i in ids], texts=["t"] * count, is_special=[False] * count)


class _Turn:
    """One call's turn: notes it, waits until steps may run, fails if told to, and notices calls side by side."""

    def __init__(self, shard: FakeShard, name: str, detail: Any, context: Any) -> None:
        self._shard = shard
        self._name = name
        self._detail = detail
        self._context = context

    async def __aenter__(self) -> None:
        shard = self._shard
        shard.calls.append((self._name, self._detail))
        shard.metadata.append((self._name, dict(self._context.invocation_metadata() or ())))
        shard._check(not shard._busy, f"{self._name} while another call is under way")
        shard._busy = True
        await shard.running.wait()
        message = shard.failures.pop(self._name, None)
        if message is not None:
            shard._busy = False
            shard.batches.clear()
            await self._context.abort(shard.failure_code, message)

    async def __aexit__(self, *_: object) -> None:
        self._shard._busy = False
