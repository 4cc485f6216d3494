"""Adapters: unknown ones mean the base model, kv.run's spelling of none (docs/conformance.md#adapters)."""

import pytest
from loguru import logger

from conformance.caller import ids_of
from mocks.mock_adapters import save_number
from mocks.mock_model import greedy_continuation
from text_generation_protocol.v2 import generate_pb2 as pb_v2
from text_generation_protocol.v3 import generate_pb2 as pb_v3

BOS = b"\xfe"


def base(text: str, new: int, special: bytes = b"") -> list[int]:
    return greedy_continuation(special + text.encode(), new, ignore_eos=True)


@pytest.fixture
def adapters(tmp_path):
    """The variable that names two adapters."""
    places = [f"{name}={save_number(tmp_path / name, number)}" for name, number in (("law", 7), ("verse", 8))]
    return {"LORA_ADAPTERS": ",".join(places)}


def test_c102_an_adapter_changes_its_own_request_only(start, adapters):
    caller = start(variables=adapters).v3
    alone = ids_of(caller.answer(caller.request(1, "hello", 6, adapter_id="verse")))
    step = caller.prefill(0, caller.request(1, "hello", 6, adapter_id="verse"), caller.request(2, "hello", 6))
    together = caller.run_out(step)
    assert ids_of(together[1]) == alone != ids_of(together[2]) == base("hello", 6)


@pytest.mark.parametrize("adapter", ["gpt-4", "", "empty"])
def test_c103_an_unknown_adapter_is_the_base_model(start, adapter):
    caller = start().v3
    assert ids_of(caller.answer(caller.request(1, "hello", 6, adapter_id=adapter))) == base("hello", 6)


@pytest.mark.parametrize("changes", [{}, {"lora_id": ""}, {"lora_id": "empty"}], ids=["absent", "nothing", "empty"])
def test_c104_kvruns_spelling_of_no_adapter(start, changes):
    caller = start().v2
    assert ids_of(caller.answer(caller.request(1, "hello", 6, **changes))) == base("hello", 6, BOS)


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_beside_adapters_an_unknown_one_fails_its_request_alone(start, adapters, version):
    caller = start(variables=adapters).caller(version)
    field = "lora_id" if version == "v2" else "adapter_id"
    step = caller.prefill(0, caller.request(1, "hello", 6, **{field: "gpt-4"}), caller.request(2, "hello", 6))
    (failed,) = [generation for generation in step.generations if generation.request_id == 1]
    assert "no adapter 'gpt-4' here; name one of law, verse, or none" in failed.generated_text.failure
    assert ids_of(caller.run_out(step)[2]) == base("hello", 6, BOS if version == "v2" else b"")


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_tgis_way_with_unknown_adapters_can_be_had(start, adapters, version):
    said = []
    sink = logger.add(said.append, level="WARNING", format="{message}")
    caller = start(variables=adapters | {"UNKNOWN_ADAPTERS_AS_BASE": "true"}).caller(version)
    field = "lora_id" if version == "v2" else "adapter_id"
    for number in (1, 2):
        answer = caller.answer(caller.request(number, "hello", 6, **{field: "gpt-4"}))
        assert ids_of(answer) == base("hello", 6, BOS if version == "v2" else b"")
    logger.remove(sink)
    assert [str(line).partition(":")[0] for line in said] == ["There is no adapter gpt-4"]


def test_prefixes_are_for_routers_that_keep_adapters_apart(start, adapters):
    info = start(variables=adapters).v3.stub.Info(pb_v3.InfoRequest())
    assert (info.use_prefix_caching, info.prefix_caching_by_adapter) == (False, True)
    assert list(info.adapter_ids) == ["law", "verse"]
    assert start().v3.stub.Info(pb_v3.InfoRequest()).use_prefix_caching


@pytest.mark.parametrize("cached", [True, False], ids=["hub-cache", "directory"])
def test_c105_an_adapter_that_was_downloaded_after_the_start_is_loaded(start, tmp_path, cached):
    variables = {"HUGGINGFACE_HUB_CACHE": str(tmp_path / "hub")} | ({} if cached else {"LORA_DIR": str(tmp_path)})
    caller = start(variables=variables).v2
    refs, commit = tmp_path / "hub" / "models--owner--law" / "refs", "0" * 40
    if cached:
        refs.mkdir(parents=True)
        (refs / "main").write_text(commit)
    save_number(refs.parent / "snapshots" / commit if cached else tmp_path / "owner" / "law", 9)
    expected = greedy_continuation([9, *BOS, *b"hello"], 6, ignore_eos=True)
    assert ids_of(caller.answer(caller.request(1, "hello", 6, lora_id="owner/law"))) == expected
    step = caller.prefill(0, caller.request(2, "hello", 6, lora_id="owner/law"), caller.request(3, "hello", 6))
    assert [ids_of(generations) for generations in caller.run_out(step).values()] == [expected, base("hello", 6, BOS)]


def test_c106_field_8_of_version_2_is_the_adapter(start):
    request = pb_v2.Request.FromString(bytes.fromhex("42 05 65 6d 70 74 79"))
    assert request.lora_id == "empty" and request.HasField("lora_id")
    caller = start().v2
    sent = caller.request(1, "hello", 3)
    sent.MergeFromString(bytes.fromhex("42 05 65 6d 70 74 79"))
    assert ids_of(caller.answer(sent)) == base("hello", 3, BOS)
