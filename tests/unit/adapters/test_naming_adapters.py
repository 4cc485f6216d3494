"""Where adapters are said to be, and where they are found."""

import pytest

from text_generation_server.adapters.files import AdapterFiles, locate_adapter
from text_generation_server.adapters.sources import AdapterSource, adapter_sources
from text_generation_server.errors import InvalidSettings, ModelNotFound
from text_generation_server.weights.remote import HubSettings


@pytest.mark.parametrize(
    ("listed", "lora_ids", "expected"),
    [
        ("", "empty", []),
        (" ", "", []),
        ("owner/law", "empty", [("owner/law", "owner/law", None)]),
        ("owner/law@v2", "empty", [("owner/law", "owner/law", "v2")]),
        ("law=/a/b , verse=c/d@e", "empty", [("law", "/a/b", None), ("verse", "c/d", "e")]),
        ("law=/a", "b;owner/c", [("law", "/a", None), ("b", "b", None), ("owner/c", "owner/c", None)]),
    ],
)
def test_lists_of_both_launchers_are_read(listed, lora_ids, expected):
    assert adapter_sources(listed, lora_ids) == tuple(AdapterSource(*source) for source in expected)


@pytest.mark.parametrize("listed", ["a=b=c", "a@b@c", "a,", "=b", "a=", "a@", "a,b,a", "a=b,a=c"])
def test_what_cannot_be_read_is_quoted(listed):
    with pytest.raises(InvalidSettings, match=r"LORA_ADAPTERS has '|the adapter 'a' is named twice"):
        adapter_sources(listed)


def test_a_directory_or_a_hub_cache_holds_an_adapter(tmp_path):
    hub = HubSettings(tmp_path / "converted", cache_dir=tmp_path / "hub", offline=True)
    reported = []
    assert locate_adapter(AdapterSource("law", str(tmp_path)), hub, reported.append) == tmp_path
    with pytest.raises(ModelNotFound, match="no directory /no/such/place of the adapter law"):
        locate_adapter(AdapterSource("law", "/no/such/place"), hub, reported.append)
    with pytest.raises(ModelNotFound, match="owner/law is not, or not whole, in the hub cache, and offline"):
        locate_adapter(AdapterSource("owner/law", "owner/law"), hub, reported.append)

    cached = tmp_path / "hub" / "models--owner--law" / "snapshots" / "abc"
    cached.mkdir(parents=True)
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        (cached / name).write_text("{}")
    refs = tmp_path / "hub" / "models--owner--law" / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    assert locate_adapter(AdapterSource("owner/law", "owner/law"), hub, reported.append) == cached

    files = AdapterFiles(tmp_path, hub, reported.append)
    (tmp_path / "verse").symlink_to(cached)
    names = [
        "owner/law",
        "verse",
        "owner/verse",
        "hub/models--owner--law/snapshots/abc",
        "",
        ".",
        "../verse",
        "a/b/c/d",
    ]
    assert list(files.found(names)) == ["owner/law", "verse", "hub/models--owner--law/snapshots/abc"]
    assert not AdapterFiles(None, hub, reported.append).found(["verse", "not a hub id", "..", "/etc", "\0"])
