"""Adapters: unknown ones mean the base model, kv.run's spelling of none (docs/conformance.md#adapters)."""

import pytest

from conformance.caller import ids_of
from mocks.mock_model import greedy_continuation
from text_generation_protocol.v2 import generate_pb2 as pb_v2

BOS = b"\xfe"


def base(text: str, new: int, special: bytes = b"") -> list[int]:
    return greedy_continuation(special + text.encode(), new, ignore_eos=True)


@pytest.mark.xfail(strict=True, reason="adapters: they have an issue of their own; LORA_ADAPTERS is refused")
def test_c102_an_adapter_changes_its_own_request_only(start, tmp_path):
    caller = start(variables={"LORA_ADAPTERS": f"law={tmp_path},verse={tmp_path}"}).v3
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


@pytest.mark.xfail(strict=True, reason="adapters: they have an issue of their own; every adapter is the base model")
def test_c105_an_adapter_that_was_downloaded_after_the_start_is_loaded(start, tmp_path):
    caller = start(variables={"HUGGINGFACE_HUB_CACHE": str(tmp_path)}).v2
    adapter = tmp_path / "models--owner--law" / "snapshots" / "main"
    adapter.mkdir(parents=True)
    (adapter / "adapter_config.json").write_text('{"r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}')
    assert ids_of(caller.answer(caller.request(1, "hello", 6, lora_id="owner/law"))) != base("hello", 6, BOS)


def test_c106_field_8_of_version_2_is_the_adapter(start):
    request = pb_v2.Request.FromString(bytes.fromhex("42 05 65 6d 70 74 79"))
    assert request.lora_id == "empty" and request.HasField("lora_id")
    caller = start().v2
    sent = caller.request(1, "hello", 3)
    sent.MergeFromString(bytes.fromhex("42 05 65 6d 70 74 79"))
    assert ids_of(caller.answer(sent)) == base("hello", 3, BOS)
