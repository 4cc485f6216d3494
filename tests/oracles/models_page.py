# ruff: noqa: E501
"""Writes docs/models.md from the parity cases: `make docs`.

What a row can do follows from the specs of its cases; that it does is checked by the tests named in the page's head.
"""

import json
import sys
from collections.abc import Iterator, Sequence
from itertools import groupby

from transformers import AutoConfig

from oracles.case import Case
from oracles.generic import REFUSED, SERVED
from oracles.table import CASES
from text_generation_server.architectures.registry import ModelSpec, read_spec
from text_generation_server.config.configdict import ConfigDict
from text_generation_server.specs.crossing import Views
from text_generation_server.specs.decoder import DecoderSpec
from text_generation_server.specs.recurrent import RecurrentSpec
from text_generation_server.specs.seq2seq import Seq2SeqSpec
from text_generation_server.specs.vision import (
    MergedProjector,
    MlpProjector,
    PerceiverProjector,
    PooledProjector,
    ProjectorSpec,
    ResamplerProjector,
    ShuffledProjector,
    Sight,
    StackedProjector,
    TiledVisionSpec,
    TowerSpec,
    VisionSpec,
)

HEAD = """\
# Models

Made from the parity cases by `make docs`; `tests/models/test_models_page.py` fails when it is out of date.

Every case is a tiny model, all parameters random, compared in float32 on a CPU with transformers' own code (or, where
transformers has none, with a model of equal arithmetic): logits at every position, and 24 greedy tokens.

| column | means | test |
| --- | --- | --- |
| parity | a prompt in one step; a ragged batch with its greedy answers | `test_parity.py::test_a_prompt_in_one_step`, `::test_a_ragged_batch_answers_greedily` |
| TP | the same on 2 and 4 gloo ranks; copies: with fewer key/value heads than ranks | `test_ranks.py` |
| chunks | a prompt in chunks, then token by token, beside a decoding row | `test_parity.py::test_chunks_beside_a_decoding_row` |
| prefix | slots that another request filled are shared; off where rotation depends on a request's length, where a layer keeps a row's state alone, and where keys follow from the whole prompt | `test_parity.py::test_a_cached_prefix_is_shared` |
| window | layers in which a query sees the newest keys only | all of them |
| backend | attention backends that serve the row; recurrences need none, encoders and what attends to them have one of their own | all of them, with `sdpa`; on a CUDA device `tests/gpu/test_gpu_parity.py` |

Images are compared first as features, then as what stands in prompts, or is attended to, beside others without any (`test_vision.py`, and all of the above); what
layers that attend to images do in the engine is in `test_image_attention.py`. A step has all
positions of an image that see each other; that chunks end before or behind it is in `tests/engine/test_engine_images.py`.

How many ranks a published model can be cut over follows from its own heads: Falcon 7B has 71 and GPT-2 XL 25, which 2 and 4
do not divide; the launcher says what fits.

"""

TABLE = """\
| models | `model_type` | cases | parity | TP | chunks | prefix | window | backend |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

IMAGES = """
## Images

| models | tower | projector | order | positions of an image |
| --- | --- | --- | --- | --- |
"""

SIGHTS = {
    Sight.CAUSAL: "causal",
    Sight.IMAGES: "see each other",
    Sight.PROMPTS: "all of the prompt sees all of it",
}


OTHER_BACKENDS = {RecurrentSpec: "none", Seq2SeqSpec: "gathered"}
"""Of what is no decoder."""

CASE_HEAD = """
## Cases

| case | what it is there for |
| --- | --- |
"""

OTHERS = """
## Any other decoder

A `model_type` that is not in the table runs through transformers' own modeling code, with our paged attention, sampling, batching and
protocol; a line in the log says so. It runs on one shard, unfused, without another rope scaling than its own, and only if it can be
checked at load: every layer must call attention once, in order, with a causal or sliding mask and nothing else in its scores, and a
sequence in chunks, beside another, must be answered as by transformers alone. What fails that is refused with the reason.

"""


def spec_of(case: Case) -> ModelSpec:
    """The spec of a case, without making its model."""
    config = AutoConfig.for_model(case.model_type, **case.config)
    values = json.loads(config.to_json_string()) if case.written is None else dict(case.written)
    return read_spec(ConfigDict(values))


def page() -> str:
    """The whole page."""
    rows = [(row, list(cases)) for row, cases in groupby(CASES, key=lambda case: case.row)]
    table = "".join(_row(row, cases) for row, cases in rows)
    return (
        HEAD
        + TABLE
        + table
        + IMAGES
        + "".join(_readers(rows))
        + OTHERS
        + "".join(_others())
        + CASE_HEAD
        + "".join(_cases())
    )


def _row(row: str, cases: Sequence[Case]) -> str:
    specs = [spec_of(case) for case in cases]
    served_as = sorted({case.model_type if case.written is None else case.written["model_type"] for case in cases})
    decoders = [spec for spec in specs if isinstance(spec, DecoderSpec)]
    copies = any(spec.attention.kv_heads < 4 for spec in decoders)
    columns = (
        row,
        ", ".join(f"`{name}`" for name in served_as),
        ", ".join(case.name for case in cases),
        "yes",
        "2, 4 (copies)" if copies else "2, 4",
        "off" if any(_whole(spec) for spec in decoders) else "yes",
        *(
            (_prefix(decoders), _window(decoders), "sdpa")
            if decoders
            else ("off", "none", OTHER_BACKENDS[type(specs[0])])
        ),
    )
    return f"| {' | '.join(columns)} |\n"


def _readers(rows: Sequence[tuple[str, Sequence[Case]]]) -> Iterator[str]:
    for row, cases in rows:
        spec = spec_of(cases[0])
        if isinstance(spec, DecoderSpec) and spec.vision is not None:
            vision = spec.vision
            yield f"| {row} | {' | '.join(_reader(vision))} | {_sight(spec, vision)} |\n"


def _reader(vision: VisionSpec | TiledVisionSpec) -> tuple[str, str, str]:
    """Tower, projector, order."""
    if isinstance(vision, TiledVisionSpec):
        return "its own, of all tiles together", "one layer, of each token", "tile by tile"
    return _tower(vision.tower), _projector(vision.projector), _order(vision)


def _sight(spec: DecoderSpec, vision: VisionSpec | TiledVisionSpec) -> str:
    if spec.crossing is not None:
        return _views(spec.crossing.views)
    turned = isinstance(vision, VisionSpec) and vision.coordinates
    return SIGHTS[vision.sight] + (", of rows and columns" if turned else "")


def _tower(spec: TowerSpec) -> str:
    if spec.packed is not None:
        how = "in windows" if spec.packed.window else "learned positions too" if spec.packed.side else "of any size"
        return f"rotated by rows and columns, {how}"
    tower = "CLIP's" if spec.names.class_token else "SigLIP's"
    return tower + (", positions by fraction" if spec.by_fraction else "")


def _order(spec: VisionSpec) -> str:
    if spec.tower.packed is not None:
        return "row by row"
    return "tiles one after the other" if spec.packing is None else "the whole, then a map of tiles, row by row"


def _views(rule: Views) -> str:
    """What tokens see where layers attend to images."""
    beside = ", and those beside it" if rule.beside else ""
    return f"one; layers attend to the last image before a token{beside}"


def _projector(spec: ProjectorSpec | None) -> str:
    match spec:
        case None:
            return "none"
        case ResamplerProjector():
            return "a resampler, as many of each image; or none"
        case MlpProjector():
            return "two layers, of each patch"
        case PooledProjector():
            return "the mean of a square of patches"
        case ShuffledProjector():
            return "one layer, of each patch" if spec.side == 1 else "a square of patches, side by side"
        case PerceiverProjector():
            return "a perceiver, as many of each tile"
        case MergedProjector():
            return "two layers, of a square of patches, side by side"
        case StackedProjector():
            return "the same, of several layers of the tower; all but the last are added behind the decoder's first"


def _prefix(specs: Sequence[DecoderSpec]) -> str:
    shares = {not (spec.ssd_layers or any(_depends_on_span(spec)) or _whole(spec)) for spec in specs}
    return {frozenset({True}): "yes", frozenset({False}): "off"}.get(frozenset(shares), "yes; off if so scaled")


def _whole(spec: DecoderSpec) -> bool:
    """Whether prompts can be neither cut nor shared."""
    return spec.vision is not None and spec.vision.sight is Sight.PROMPTS


def _depends_on_span(spec: DecoderSpec) -> Iterator[bool]:
    ropes = (spec.attention.rope_of(layer) for layer in spec.attending)
    return (rope.depends_on_span for rope in ropes if rope is not None)


def _window(specs: Sequence[DecoderSpec]) -> str:
    kinds = {tuple(spec.attention.window_of(layer) is not None for layer in range(spec.num_layers)) for spec in specs}
    if not any(any(layers) for layers in kinds):
        return "none"
    return "some layers" if any(any(layers) and not all(layers) for layers in kinds) else "all layers"


def _others() -> Iterator[str]:
    served = ", ".join(f"`{case.model_type}`" for case in SERVED)
    refused = ", ".join(f"`{model_type}`" for model_type in REFUSED)
    yield "| examples | what happens | test |\n| --- | --- | --- |\n"
    yield f"| {served} | the same answers as transformers' on one shard | `test_generic.py` |\n"
    yield f"| {refused} | refused, with the reason | `test_generic.py` |\n"


def _cases() -> Iterator[str]:
    for case in CASES:
        yield f"| {case.name} | {case.notes} |\n"


if __name__ == "__main__":
    sys.stdout.write(page())
