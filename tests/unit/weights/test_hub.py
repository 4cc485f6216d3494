"""Downloading from a hub, played by a local server: what is asked for, what is not, and what is said when it fails."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save

from text_generation_server.errors import ModelNotFound, UnsupportedModel
from text_generation_server.weights.dummy import locate_without_weights
from text_generation_server.weights.files import weight_files
from text_generation_server.weights.hub import download
from text_generation_server.weights.remote import HubSettings
from text_generation_server.weights.source import say_nothing

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = save({"a": torch.ones(2)})


@dataclass
class Hub:
    """Files by model id; `failures` answers are 503 before the hub works; `error` is an X-Error-Code for everything."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    failures: int = 0
    error: tuple[int, str] | None = None
    url: str = ""
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self._respond(body=False)

        def do_GET(self) -> None:
            self._respond(body=True)

        def _respond(self, body: bool) -> None:
            hub.tokens.add(self.headers["authorization"])
            if hub.failures:
                hub.failures -= 1
                return self._send(503, b"", {}, body)
            if hub.error:
                return self._send(hub.error[0], b"{}", {"X-Error-Code": hub.error[1]}, body)
            content = self._listing() if self.path.startswith("/api/models/") else self._file()
            if content is None:
                return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
            self._send(200, content, {"X-Repo-Commit": COMMIT, "ETag": f'"{hash(content):x}"'}, body)

        def _listing(self) -> bytes | None:
            model_id = "/".join(self.path.split("/")[3:5])
            if model_id not in hub.files:
                return None
            siblings = [{"rfilename": name} for name in hub.files[model_id]]
            return json.dumps({"id": model_id, "sha": COMMIT, "siblings": siblings}).encode()

        def _file(self) -> bytes | None:
            owner, model, _, _, name = self.path.lstrip("/").split("/", 4)
            if self.command == "GET":
                hub.asked.append(name)
            return hub.files.get(f"{owner}/{model}", {}).get(name)

        def _send(self, status: int, content: bytes, headers: dict[str, str], body: bool) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Handler


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub({"o/m": {"config.json": b"{}", "model.safetensors": WEIGHTS, "README.md": b"#", "code.py": b"pass"}})
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield hub
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def settings(tmp_path: Path, hub: Hub) -> HubSettings:
    return HubSettings(
        converted_cache=tmp_path / "converted", cache_dir=tmp_path / "hub", endpoint=hub.url, retry_pause_s=0.0
    )


def _download(
    model_id: str, settings: HubSettings, report: Callable[[str], None] = say_nothing, **options: Any
) -> Path:
    arguments = {"revision": None, "extension": ".safetensors", "trust_remote_code": False, "auto_convert": True}
    return download(model_id, hub=settings, report=report, **{**arguments, **options})


def test_a_model_is_downloaded_once(hub: Hub, settings: HubSettings) -> None:
    lines: list[str] = []
    directory = _download("o/m", replace(settings, token="hf_secret"), lines.append)
    assert load_file(directory / "model.safetensors")["a"].tolist() == [1, 1]
    assert hub.asked == ["config.json", "model.safetensors"], "no prose, no code"
    assert hub.tokens == {"Bearer hf_secret"}
    assert any("model.safetensors" in line and "MB" in line for line in lines)

    hub.failures = 1000
    assert _download("o/m", settings) == directory
    assert _download("o/m", replace(settings, offline=True)) == directory


def test_code_is_fetched_when_it_is_trusted(hub: Hub, settings: HubSettings) -> None:
    _download("o/m", settings, trust_remote_code=True)
    assert "code.py" in hub.asked


def test_chat_templates_are_fetched_from_their_folder(hub: Hub, settings: HubSettings) -> None:
    name = "additional_chat_templates/tool_use.jinja"
    hub.files["o/m"] |= {name: b"{{ tools }}", "chat_template.jinja": b"{{ messages }}", "more/x.jinja": b""}
    directory = _download("o/m", settings)
    assert (directory / name).read_bytes() == b"{{ tools }}" and (directory / "chat_template.jinja").exists()
    assert "more/x.jinja" not in hub.asked


def test_a_revision_is_asked_for(hub: Hub, settings: HubSettings) -> None:
    directory = _download("o/m", settings, revision="v2")
    assert (settings.cache_dir / "models--o--m" / "refs" / "v2").read_text() == COMMIT  # type: ignore[operator]
    hub.failures = 1000
    assert _download("o/m", settings, revision="v2") == directory


def test_weights_are_chosen_among_look_alikes(hub: Hub, settings: HubSettings) -> None:
    names = ["training.safetensors", "consolidated.safetensors", "pytorch_model.bin", "onnx/model.safetensors"]
    names += ["adapter_model.safetensors", "optimizer.safetensors"]
    hub.files["o/m"].update(dict.fromkeys(names, b""))
    _download("o/m", settings)
    assert [name for name in hub.asked if not name.endswith(".json")] == ["model.safetensors"]


def test_a_missing_shard_is_fetched(hub: Hub, settings: HubSettings) -> None:
    index = json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}).encode()
    hub.files["o/m"] = {"config.json": b"{}", "model.safetensors.index.json": index, "model-1.safetensors": WEIGHTS}
    with pytest.raises(
        ModelNotFound, match=r"o/m has no model-2\.safetensors, which model\.safetensors\.index\.json lists"
    ):
        _download("o/m", settings)
    assert hub.asked == ["model.safetensors.index.json"], "nothing else is worth the time"
    hub.files["o/m"]["model-2.safetensors"] = save({"b": torch.ones(1)})
    lost = _download("o/m", settings) / "model-2.safetensors"
    lost.resolve().unlink()
    lost.unlink()
    hub.asked.clear()
    directory = _download("o/m", settings)
    assert hub.asked == ["model-2.safetensors"]
    assert weight_files(directory).names == ("model-1.safetensors", "model-2.safetensors")


def test_pytorch_files_are_converted(hub: Hub, settings: HubSettings, tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2)}, tmp_path / "weights")
    hub.files["o/old"] = {"config.json": b"{}", "pytorch_model.bin": (tmp_path / "weights").read_bytes()}
    with pytest.raises(ModelNotFound, match=r"neither model\.safetensors nor .*, only pytorch_model\.bin: convert"):
        _download("o/old", settings, auto_convert=False)
    lines: list[str] = []
    directory = _download("o/old", settings, lines.append)
    assert load_file(directory / "model.safetensors")["a"].tolist() == [1, 1]
    assert any("no code in them is run" in line for line in lines)


def test_another_extension_is_not_converted(hub: Hub, settings: HubSettings) -> None:
    hub.files["o/old"] = {"config.json": b"{}", "pytorch_model.bin": b"x"}
    directory = _download("o/old", settings, extension=".bin")
    assert sorted(path.name for path in directory.iterdir()) == ["config.json", "pytorch_model.bin"]


def test_an_adapter_is_refused_before_it_is_downloaded(hub: Hub, settings: HubSettings) -> None:
    hub.files["o/lora"] = {"adapter_config.json": b"{}", "adapter_model.safetensors": WEIGHTS}
    with pytest.raises(UnsupportedModel, match="o/lora is a LoRA adapter"):
        _download("o/lora", settings)
    assert hub.asked == []


def test_the_model_that_a_model_builds_on_comes_along(hub: Hub, settings: HubSettings) -> None:
    config = json.dumps({"base_model_name_or_path": "o/base"}).encode()
    hub.files["o/head"] = {"config.json": config, "model.safetensors": WEIGHTS}
    lines: list[str] = []
    _download("o/head", settings, lines.append)
    assert "Going on without the base model" in lines[-1] + lines[-2]
    hub.files["o/base"] = {"config.json": b"{}", "model.safetensors": WEIGHTS, "vocab.txt": b"a"}
    _download("o/head", replace(settings, cache_dir=settings.converted_cache))
    assert "vocab.txt" in hub.asked


def test_failures_are_tried_again(hub: Hub, settings: HubSettings) -> None:
    hub.failures = 2
    lines: list[str] = []
    _download("o/m", settings, lines.append)
    assert sum("trying again" in line for line in lines) >= 1


def test_a_hub_that_never_answers_is_an_error_after_five_tries(settings: HubSettings) -> None:
    lines: list[str] = []
    with pytest.raises(ModelNotFound, match="check the network, name a local directory"):
        _download("o/m", replace(settings, endpoint="http://127.0.0.1:9"), lines.append)
    assert [line[-12:] for line in lines] == [f"{left} tries left" for left in (4, 3, 2, 1)]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ((404, "RepoNotFound"), "'o/m' is neither a local directory or .gguf file nor a model on the hub"),
        ((403, "GatedRepo"), "o/m at revision v9 is gated: accept its terms"),
        ((404, "RevisionNotFound"), "o/m has no revision 'v9'"),
    ],
    ids=["unknown", "gated", "revision"],
)
def test_answers_that_will_not_change_are_explained_at_once(
    hub: Hub, settings: HubSettings, error: tuple[int, str], reason: str
) -> None:
    hub.error = error
    lines: list[str] = []
    with pytest.raises(ModelNotFound, match=reason.replace(".", r"\.")):
        _download("o/m", settings, lines.append, revision="v9")
    assert lines == []


def test_a_cache_that_cannot_be_written_is_named_at_once(settings: HubSettings, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    lines: list[str] = []
    with pytest.raises(ModelNotFound, match=r"config\.json of o/m cannot be kept in the hub cache .*name another"):
        _download("o/m", replace(settings, cache_dir=tmp_path / "file"), lines.append)
    assert lines == []


def test_offline_never_asks(hub: Hub, settings: HubSettings) -> None:
    with pytest.raises(ModelNotFound, match="unset HF_HUB_OFFLINE, or name a local directory"):
        _download("o/m", replace(settings, offline=True))
    assert hub.asked == []
    assert hub.tokens == set()


def test_a_name_that_no_hub_takes_is_explained(settings: HubSettings) -> None:
    with pytest.raises(ModelNotFound, match="neither a local directory"):
        _download("no such/model name", settings)


def test_a_local_directory_is_left_alone_or_converted(settings: HubSettings, tmp_path: Path) -> None:
    directory = tmp_path / "model"
    directory.mkdir()
    with pytest.raises(ModelNotFound, match=r"neither model\.safetensors nor .*, no weights"):
        _download(str(directory), settings)
    torch.save({"a": torch.ones(2)}, directory / "pytorch_model.bin")
    assert _download(str(directory), settings) == directory
    assert (directory / "model.safetensors").is_file()
    before = (directory / "model.safetensors").stat().st_mtime_ns
    _download(str(directory), settings)
    assert (directory / "model.safetensors").stat().st_mtime_ns == before


def test_an_override_stands_for_the_model(hub: Hub, settings: HubSettings, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(WEIGHTS)
    assert _download("o/m", replace(settings, weights_cache_override=tmp_path)) == tmp_path
    assert hub.asked == []


def test_random_weights_need_no_weights_of_the_hub(hub: Hub, settings: HubSettings) -> None:
    hub.files["o/m"]["tokenizer.json"] = b"[]"
    directory = locate_without_weights("o/m", None, settings)
    assert {path.name for path in directory.iterdir()} == {"config.json", "tokenizer.json"}
    assert sorted(hub.asked) == ["config.json", "tokenizer.json"]
    assert locate_without_weights("o/m", None, replace(settings, offline=True)) == directory
