"""Artifact stores: a directory, and nginx as the role configures it. The same tests over both."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
import re
import socket
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml

from swarm.browse.artifacts import (
    EXTENSIONS,
    ArtifactRefusedError,
    ArtifactStore,
    ArtifactStoreAwayError,
    Keeping,
    NoSuchArtifactError,
)
from swarm.browse.directory_store import DirectoryStore
from swarm.browse.http_store import HttpStore
from swarm.browse.result import Artifact
from tests.loopback import free_port, wait_until
from tests.programs import NGINX, need
from tests.role_artifacts import MAX_BYTES, READER, ROLE, WRITER, RoleArtifacts

PNG = b"\x89PNG and so on"


def listed(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@dataclass
class Kept:
    """A store as a worker and as a reader see it, and the directory in which its files end."""

    writing: ArtifactStore
    reading: ArtifactStore
    files: Path
    scratch: Path

    def names(self) -> set[str]:
        return {name for name in listed(self.files) if not name.startswith(".")}

    def unfinished(self) -> set[str]:
        hidden = {name for name in listed(self.files) if name.startswith(".")}
        return hidden | listed(self.scratch)

    async def get(self, artifact: Artifact) -> bytes:
        into = io.BytesIO()
        assert await self.reading.get(artifact.id, into) == Path(artifact.url).name
        return into.getvalue()

    async def close(self) -> None:
        await self.writing.close()
        await self.reading.close()


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RoleArtifacts]:
    need(NGINX, "nginx, by `make setup`")
    directory = tmp_path_factory.mktemp("role-artifacts")
    store = RoleArtifacts(directory, directory / "data")
    store.start()
    yield store
    store.kill()


def in_directory(root: Path, *, keeping: Keeping) -> Kept:
    root.mkdir(exist_ok=True)
    (root.parent / "scratch").mkdir(exist_ok=True)
    store = DirectoryStore(root, host="w1", keeping=keeping)
    return Kept(store, store, root, root.parent / "scratch")


def over_http(nginx: RoleArtifacts, *, keeping: Keeping) -> Kept:
    return Kept(
        HttpStore(nginx.url, credential=WRITER, keeping=keeping, retry_pause_s=0),
        HttpStore(nginx.url, credential=READER, retry_pause_s=0),
        nginx.files,
        nginx.scratch,
    )


@pytest.fixture(params=["directory", "http"])
async def kept(
    request: pytest.FixtureRequest, tmp_path: Path, nginx: RoleArtifacts
) -> AsyncIterator[Kept]:
    keeping = Keeping(max_bytes=MAX_BYTES)
    directory = request.param == "directory"
    store = (
        in_directory(tmp_path / "files", keeping=keeping)
        if directory
        else over_http(nginx, keeping=keeping)
    )
    for name in store.names():
        (store.files / name).unlink()
    yield store
    await store.close()


async def test_what_is_put_can_be_got(kept: Kept) -> None:
    artifact = await kept.writing.put(PNG, kind="screenshot", mime="image/png")
    assert re.fullmatch(r"[0-9a-f]{32}", artifact.id)
    assert artifact.url.endswith(f"/{artifact.id}.png")
    assert (artifact.kind, artifact.mime, artifact.bytes) == ("screenshot", "image/png", len(PNG))
    assert artifact.sha256 == hashlib.sha256(PNG).hexdigest()
    assert await kept.get(artifact) == PNG
    assert kept.names() == {f"{artifact.id}.png"}


async def test_it_says_until_when_it_is_kept(kept: Kept) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    artifact = await kept.writing.put(PNG, kind="k", mime="image/png")
    expires = datetime.strptime(artifact.expires, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert before <= expires - timedelta(days=7) <= datetime.now(UTC)


@pytest.mark.parametrize("mime", EXTENSIONS)
async def test_every_type_has_its_extension(kept: Kept, mime: str) -> None:
    artifact = await kept.writing.put(b"content", kind="k", mime=mime)
    assert kept.names() == {f"{artifact.id}.{EXTENSIONS[mime]}"}
    assert await kept.get(artifact) == b"content"


@pytest.mark.parametrize("size", [0, 1, 256 * 1024, MAX_BYTES])
async def test_a_file_is_stored_whole(kept: Kept, tmp_path: Path, size: int) -> None:
    source = tmp_path / "video"
    content = os.urandom(size)
    source.write_bytes(content)
    artifact = await kept.writing.put(source, kind="video", mime="video/webm")
    assert (artifact.bytes, artifact.sha256) == (size, hashlib.sha256(content).hexdigest())
    assert await kept.get(artifact) == content
    assert kept.unfinished() == set()


async def test_the_same_content_twice_is_two_files(kept: Kept) -> None:
    first, second = [await kept.writing.put(PNG, kind="k", mime="image/png") for _ in range(2)]
    assert first.id != second.id
    assert len(kept.names()) == 2


async def test_many_at_once_are_all_there_and_none_is_another_s(kept: Kept) -> None:
    contents = [f"{number}".encode() * 10_000 for number in range(40)]
    artifacts = await asyncio.gather(
        *(kept.writing.put(content, kind="k", mime="text/plain") for content in contents)
    )
    assert [await kept.get(artifact) for artifact in artifacts] == contents
    assert len(kept.names()) == 40


@pytest.mark.parametrize("as_file", [False, True])
async def test_too_large_is_refused_and_nothing_is_left(
    kept: Kept, tmp_path: Path, *, as_file: bool
) -> None:
    content: bytes | Path = b"x" * (MAX_BYTES + 1)
    if as_file:
        (tmp_path / "source").write_bytes(b"x" * (MAX_BYTES + 1))
        content = tmp_path / "source"
    with pytest.raises(ArtifactRefusedError, match=str(MAX_BYTES)):
        await kept.writing.put(content, kind="download", mime="application/octet-stream")
    assert (kept.names(), kept.unfinished()) == (set(), set())


@pytest.mark.parametrize(
    "artifact_id",
    ["0" * 32, "", "..", "../files", "%2e%2e", "x" * 32, "/etc/passwd", "0" * 32 + ".png"],
)
async def test_what_is_no_artifact_is_not_given(kept: Kept, artifact_id: str) -> None:
    into = io.BytesIO()
    with pytest.raises(NoSuchArtifactError):
        await kept.reading.get(artifact_id, into)
    assert into.getvalue() == b""


async def test_the_loop_goes_on_while_a_file_is_stored(tmp_path: Path) -> None:
    """A source that gives nothing for a while: a pipe. HTTP needs a size first, so not there."""
    kept = in_directory(tmp_path / "files", keeping=Keeping())
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    putting = asyncio.ensure_future(kept.writing.put(pipe, kind="k", mime="video/webm"))
    writer: int = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)
    os.write(writer, b"content")
    for _ in range(100):
        await asyncio.sleep(0)
    assert kept.names() == set()
    assert not putting.done()
    os.close(writer)
    assert await kept.get(await putting) == b"content"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        message = f"a small tmpfs cannot be mounted: {done.stderr.strip()}"
        (pytest.fail if os.environ.get("CI") else pytest.skip)(message)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.mark.parametrize("kind", ["directory", "http"])
async def test_a_full_disk_refuses_and_takes_again_when_there_is_room(
    small_disk: Path, tmp_path: Path, kind: str
) -> None:
    nginx = RoleArtifacts(tmp_path, small_disk)
    if kind == "http":
        need(NGINX, "nginx, by `make setup`")
        nginx.start()
        kept = over_http(nginx, keeping=Keeping())
    else:
        kept = in_directory(small_disk / "files", keeping=Keeping())
    try:
        first = await kept.writing.put(b"x" * 150_000, kind="k", mime="text/plain")
        for content in (b"y" * 200_000, b"z" * 500_000):
            with pytest.raises(ArtifactRefusedError, match=r"disk is full|No space left"):
                await kept.writing.put(content, kind="k", mime="text/plain")
        assert kept.names() == {f"{first.id}.txt"}
        assert await kept.get(first) == b"x" * 150_000
        wait_until(lambda: kept.unfinished() == set(), what="no scratch files")
        (kept.files / f"{first.id}.txt").unlink()
        second = await kept.writing.put(b"y" * 150_000, kind="k", mime="text/plain")
        assert kept.names() == {f"{second.id}.txt"}
    finally:
        await kept.close()
        nginx.kill()


# From here on nginx alone: what its users may do, however they ask.


def ask(
    nginx: RoleArtifacts,
    method: str,
    path: str,
    *,
    credential: str | None = WRITER,
    body: bytes = b"content",
    **headers: str,
) -> tuple[int, bytes, dict[str, str]]:
    """One request exactly as given: no client's ideas of a path come in between."""
    connection = HTTPConnection("127.0.0.1", nginx.port, timeout=10)
    connection.putrequest(method, path, skip_accept_encoding=True)
    if credential:
        token = base64.b64encode(credential.encode()).decode()
        connection.putheader("Authorization", f"Basic {token}")
    for name, value in {"Content_Type": "image/png", **headers}.items():
        connection.putheader(name.replace("_", "-"), value)
    if method in {"PUT", "POST"}:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body if method in {"PUT", "POST"} else None)
    answer = connection.getresponse()
    try:
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


@pytest.fixture
def stored(nginx: RoleArtifacts) -> str:
    """The name of an artifact that is there."""
    status, _, headers = ask(nginx, "PUT", "/new", body=PNG)
    assert status == 201
    return headers["Content-Location"].removeprefix("/")


def snapshot(nginx: RoleArtifacts) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in nginx.data.rglob("*") if path.is_file()}


WAYS_TO_A_FILE: list[Callable[[str], str]] = [
    lambda name: f"/{name}",
    lambda name: f"/new/../{name}",
    lambda name: f"/new/%2e%2e/{name}",
    lambda name: f"//{name}",
    lambda name: f"/new/{name}",
    lambda name: f"/new%2f..%2f{name}",
    lambda name: f"/new?{name}",
    lambda name: f"/files/{name}",
    lambda name: f"/{name.partition('.')[0]}",
]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "MKCOL", "COPY", "MOVE", "POST", "PATCH"])
@pytest.mark.parametrize("way", WAYS_TO_A_FILE)
@pytest.mark.parametrize("credential", [WRITER, READER, None])
def test_nobody_changes_an_artifact_that_is_there(
    nginx: RoleArtifacts,
    stored: str,
    method: str,
    way: Callable[[str], str],
    credential: str | None,
) -> None:
    before = snapshot(nginx)
    status, _, headers = ask(
        nginx, method, way(stored), credential=credential, Destination=f"/{'0' * 32}.png"
    )
    after = snapshot(nginx)
    new = {} if status != 201 else {str(nginx.files) + headers["Content-Location"]: b"content"}
    assert after == {**before, **new}
    # To /new with anything behind the question mark is a new artifact, and not the one named.
    assert (status == 201) == (method == "PUT" and "?" in way(stored) and credential == WRITER)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/files/",
            "/scratch/",
            "/../",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/..%2f..%2fetc%2fpasswd",
        ),
        *("/nginx.conf", "/../nginx.conf", "/../artifacts-writers", "/new", "/new/"),
        "/" + "0" * 32 + ".png/../../../artifacts-readers",
        "/" + "0" * 32 + ".conf",
    ],
)
@pytest.mark.parametrize("credential", [WRITER, READER])
def test_nothing_but_artifacts_is_given_and_there_is_no_list(
    nginx: RoleArtifacts, stored: str, path: str, credential: str
) -> None:
    status, body, _ = ask(nginx, "GET", path, credential=credential)
    assert status in {400, 403, 404}
    assert stored.encode() not in body
    assert b"the-token" not in body


@pytest.mark.parametrize(
    "credential",
    [
        *(None, "reader:", "reader:wrong", ":the-token-for-reading", "x:the-token-for-reading"),
        *("writer:the-token-for-reading", WRITER),
    ],
)
def test_without_the_token_for_reading_nothing_is_read(
    nginx: RoleArtifacts, stored: str, credential: str | None
) -> None:
    for path in (f"/{stored}", f"/{stored.partition('.')[0]}"):
        for method in ("GET", "HEAD"):
            status, body, _ = ask(nginx, method, path, credential=credential)
            assert status == 401
            assert PNG not in body
            assert ask(nginx, method, path, credential=READER)[0] == 200


@pytest.mark.parametrize(
    "credential", [None, "writer:", "writer:wrong", "writer:the-token-for-reading", READER]
)
def test_without_the_token_for_writing_nothing_is_stored(
    nginx: RoleArtifacts, credential: str | None
) -> None:
    before = snapshot(nginx)
    assert ask(nginx, "PUT", "/new", credential=credential)[0] == 401
    assert snapshot(nginx) == before


@pytest.mark.parametrize("kind", ["", "text/x-shell", "image/png; charset=x", "IMAGE", "../png"])
def test_a_type_that_is_not_known_is_refused(nginx: RoleArtifacts, kind: str) -> None:
    before = snapshot(nginx)
    assert ask(nginx, "PUT", "/new", Content_Type=kind)[0] == 415
    assert snapshot(nginx) == before


def test_the_server_s_own_limit_holds_too(nginx: RoleArtifacts) -> None:
    before = snapshot(nginx)
    status, _, _ = ask(nginx, "PUT", "/new", body=b"x" * (MAX_BYTES + 1), Expect="100-continue")
    assert status == 413
    assert snapshot(nginx) == before


def test_pages_that_are_stored_run_no_scripts_where_they_are_served(nginx: RoleArtifacts) -> None:
    put = ask(nginx, "PUT", "/new", body=b"<script>", Content_Type="text/html")
    name = put[2]["Content-Location"]
    for path in (name, name.removesuffix(".html")):
        _, _, headers = ask(nginx, "GET", path, credential=READER)
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert headers["Content-Security-Policy"].startswith("sandbox; default-src 'none'")
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_link_in_the_directory_leads_nowhere(nginx: RoleArtifacts) -> None:
    link = nginx.files / f"{'e' * 32}.txt"
    link.symlink_to(nginx.config)
    try:
        for path in (f"/{'e' * 32}", f"/{link.name}"):
            assert ask(nginx, "GET", path, credential=READER)[0] in {403, 404}
    finally:
        link.unlink()


def begin_upload(nginx: RoleArtifacts) -> socket.socket:
    """The first half of an upload, as far as the server's disk."""
    before = listed(nginx.scratch)
    connection = socket.create_connection(("127.0.0.1", nginx.port), timeout=10)
    token = base64.b64encode(WRITER.encode()).decode()
    head = f"PUT /new HTTP/1.1\r\nHost: h\r\nAuthorization: Basic {token}\r\n"
    head += "Content-Type: image/png\r\nContent-Length: 200000\r\n\r\n"
    connection.sendall(head.encode() + b"x" * 100_000)
    wait_until(lambda: listed(nginx.scratch) - before, what="an upload under way")
    return connection


def test_half_an_upload_is_never_seen(nginx: RoleArtifacts) -> None:
    before = listed(nginx.files)
    with begin_upload(nginx):
        assert listed(nginx.files) == before
    wait_until(lambda: listed(nginx.scratch) == set(), what="an empty scratch directory")
    assert listed(nginx.files) == before


async def test_a_killed_server_shows_nothing_half_and_takes_up_its_work(tmp_path: Path) -> None:
    need(NGINX, "nginx, by `make setup`")
    nginx = RoleArtifacts(tmp_path, tmp_path / "data")
    nginx.start()
    kept = over_http(nginx, keeping=Keeping())
    try:
        first = await kept.writing.put(PNG, kind="k", mime="image/png")
        with begin_upload(nginx):
            nginx.kill()
            assert kept.names() == {f"{first.id}.png"}
        with pytest.raises(ArtifactStoreAwayError, match="does not answer"):
            await kept.writing.put(PNG, kind="k", mime="image/png")
        nginx.start()
        # On the connections that the kill has cut: the second try is what works.
        second = await kept.writing.put(PNG, kind="k", mime="image/png")
        assert await kept.get(first) == await kept.get(second) == PNG
    finally:
        await kept.close()
        nginx.kill()


def test_the_log_tells_of_refusals_and_holds_no_token(nginx: RoleArtifacts) -> None:
    ask(nginx, "PUT", "/new", credential="writer:a-wrong-token")
    assert "password mismatch" in nginx.log
    assert "the-token" not in nginx.log
    assert "a-wrong-token" not in nginx.log


# The client against servers that are not as they should be.


@pytest.mark.parametrize(
    ("answer", "expected", "message"),
    [
        ("401 Unauthorized", ArtifactStoreAwayError, "refuses our token"),
        ("403 Forbidden", ArtifactStoreAwayError, "refuses our token"),
        ("413 Too Large", ArtifactRefusedError, "larger than the store takes"),
        ("415 Unsupported", ArtifactRefusedError, "takes no image/png"),
        ("500 Error", ArtifactRefusedError, "disk is full"),
        ("507 Full", ArtifactRefusedError, "disk is full"),
        ("502 Bad Gateway", ArtifactStoreAwayError, "answered 502"),
        ("302 Found\r\nLocation: http://127.0.0.1:1/", ArtifactStoreAwayError, "answered 302"),
        ("201 Created", ArtifactStoreAwayError, "no artifact store"),
        ("201 Created\r\nContent-Location: /x.png", ArtifactStoreAwayError, "no artifact store"),
    ],
)
async def test_each_answer_has_its_meaning(
    answer: str, expected: type[Exception], message: str
) -> None:
    async with serving(answer) as (port, requests):
        store = HttpStore(f"http://127.0.0.1:{port}", credential=WRITER, retry_pause_s=0)
        with pytest.raises(expected, match=message):
            await store.put(PNG, kind="k", mime="image/png")
        await store.close()
    assert len(requests) == 1


@pytest.mark.parametrize("as_file", [False, True])
async def test_connections_that_break_are_tried_again_but_not_for_ever(
    tmp_path: Path, *, as_file: bool
) -> None:
    content: bytes | Path = PNG
    if as_file:
        content = tmp_path / "source"
        content.write_bytes(PNG)
    created = f"201 Created\r\nContent-Location: /{'a' * 32}.png"
    async with serving("", "", created) as (port, requests):
        store = HttpStore(f"http://127.0.0.1:{port}", credential=WRITER, retry_pause_s=0)
        assert (await store.put(content, kind="k", mime="image/png")).id == "a" * 32
        await store.close()
    assert len(requests) == 3
    async with serving("") as (port, requests):
        store = HttpStore(f"http://127.0.0.1:{port}", credential=WRITER, retry_pause_s=0)
        with pytest.raises(ArtifactStoreAwayError, match="does not answer"):
            await store.put(content, kind="k", mime="image/png")
        await store.close()
    assert len(requests) <= 4


async def test_a_server_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("swarm.browse.http_store._TRANSFER_TIMEOUT_S", 0.3)
    async with serving(None) as (port, requests):
        store = HttpStore(f"http://127.0.0.1:{port}", credential=WRITER, retry_pause_s=0)
        with pytest.raises(ArtifactStoreAwayError, match="no answer in time"):
            await store.put(PNG, kind="k", mime="image/png")
        with pytest.raises(ArtifactStoreAwayError, match="no answer in time"):
            await store.get("0" * 32, io.BytesIO())
        await store.close()
    # It is not worth trying again what took all the time there was.
    assert len(requests) == 2


async def test_half_an_artifact_is_not_given_as_one() -> None:
    async with serving("200 OK\r\nContent-Length: 100", length=False) as (port, _):
        store = HttpStore(f"http://127.0.0.1:{port}", credential=READER)
        with pytest.raises(ArtifactStoreAwayError):
            await store.get("0" * 32, io.BytesIO())
        await store.close()


async def test_nobody_there_is_a_store_that_is_away() -> None:
    store = HttpStore(f"http://127.0.0.1:{free_port()}", credential=WRITER, retry_pause_s=0)
    with pytest.raises(ArtifactStoreAwayError):
        await store.put(PNG, kind="k", mime="image/png")
    with pytest.raises(ArtifactStoreAwayError):
        await store.get("0" * 32, io.BytesIO())
    await store.close()


class serving:  # noqa: N801 - reads as a function
    """A server that answers each request with one line, hangs up (""), or says nothing (None).

    The answers are given in turn, the last one from then on.
    """

    def __init__(self, *answers: str | None, length: bool = True) -> None:
        self._answers = answers
        self._length = length
        self._requests: list[bytes] = []
        self._silent = asyncio.Event()

    async def __aenter__(self) -> tuple[int, list[bytes]]:
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        return self._server.sockets[0].getsockname()[1], self._requests

    async def __aexit__(self, *_: object) -> None:
        self._silent.set()
        self._server.close()
        await self._server.wait_closed()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._requests.append(await reader.readuntil(b"\r\n\r\n"))
        answer = self._answers[min(len(self._requests), len(self._answers)) - 1]
        if answer is None:
            await self._silent.wait()
        elif answer:
            length = "\r\nContent-Length: 0" if self._length else ""
            writer.write(f"HTTP/1.1 {answer}{length}\r\n\r\n".encode())
            await writer.drain()
        writer.close()


def test_role_and_product_know_the_same_types() -> None:
    variables: dict[str, Any] = yaml.safe_load((ROLE / "vars" / "main.yml").read_text())
    assert variables["__artifacts_types"] == EXTENSIONS
