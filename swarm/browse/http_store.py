"""The artifact store of a fleet: nginx on the control host, as the role `artifacts` deploys it.

A PUT goes to one address, `/new`; nginx itself makes up the name, and says it in Content-Location.
So no client can name a file to write, and a second try can at worst store a second copy.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import os
from pathlib import Path
from typing import BinaryIO

import aiohttp

from swarm.browse.artifacts import (
    CHUNK_BYTES,
    ArtifactRefusedError,
    ArtifactStoreAwayError,
    Keeping,
    NoSuchArtifactError,
    artifact_id_of,
    is_artifact_id,
)
from swarm.browse.result import Artifact

_CONNECT_TIMEOUT_S = 5.0
#: For the whole of a transfer, to which a second is added for each of its megabytes.
_TRANSFER_TIMEOUT_S = 15.0
_SLOWEST_BYTES_PER_S = 1024**2
#: nginx's answers when its disk is full or broken: 500 while a body arrives, 507 at its end.
_NO_ROOM = frozenset({500, 507})


class HttpStore:
    """Puts and gets as one of the store's two users; `credential` is `user:token`.

    Belongs to the loop on which it is first used.
    """

    def __init__(
        self,
        url: str,
        *,
        credential: str,
        keeping: Keeping | None = None,
        retry_pause_s: float = 1.0,
    ) -> None:
        self._url = url.rstrip("/")
        token = base64.b64encode(credential.encode()).decode()
        self._headers = {"Authorization": f"Basic {token}"}
        self._keeping = keeping or Keeping()
        self._retry_pause_s = retry_pause_s
        self._session: aiohttp.ClientSession | None = None

    async def put(self, content: bytes | Path, *, kind: str, mime: str) -> Artifact:
        size, digest = await asyncio.to_thread(_measure, content, self._keeping)
        try:
            name = await self._upload(content, size, mime)
        except aiohttp.ClientConnectionError:
            # aiohttp itself tries a cut connection once more, at once. A restart of the store takes
            # longer, though less than this.
            await asyncio.sleep(self._retry_pause_s)
            try:
                name = await self._upload(content, size, mime)
            except aiohttp.ClientConnectionError as exc:
                raise ArtifactStoreAwayError(f"{self._url} does not answer: {exc}") from exc
        artifact_id = artifact_id_of(name)
        if artifact_id is None:
            raise ArtifactStoreAwayError(f"{self._url} is no artifact store: it named none")
        return Artifact(
            id=artifact_id,
            kind=kind,
            mime=mime,
            bytes=size,
            sha256=digest,
            expires=self._keeping.expires(),
            url=f"{self._url}/{name}",
        )

    async def get(self, artifact_id: str, into: BinaryIO) -> str:
        if not is_artifact_id(artifact_id):
            raise NoSuchArtifactError(f"no artifact {artifact_id}")
        # How long it takes is the reader's matter, as long as something comes.
        timeout = aiohttp.ClientTimeout(
            total=None, sock_connect=_CONNECT_TIMEOUT_S, sock_read=_TRANSFER_TIMEOUT_S
        )
        try:
            async with self._open_session().get(
                f"{self._url}/{artifact_id}", timeout=timeout, allow_redirects=False
            ) as response:
                if response.status == 404:
                    raise NoSuchArtifactError(f"no artifact {artifact_id} at {self._url}")
                if response.status != 200:
                    raise self._failure(response.status)
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    await asyncio.to_thread(into.write, chunk)
                return _name_in(response)
        except (aiohttp.ClientError, TimeoutError) as exc:
            raise self._away(exc) from exc

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _upload(self, content: bytes | Path, size: int, mime: str) -> str:
        """One try. Returns the name that the store gave.

        Raises:
            aiohttp.ClientConnectionError: nobody is there, or no longer.
        """
        allowed_s = _TRANSFER_TIMEOUT_S + size / _SLOWEST_BYTES_PER_S
        try:
            async with self._open_session().put(
                f"{self._url}/new",
                # Sent piece by piece, and closed, by aiohttp; a file's pieces are read in threads.
                data=await asyncio.to_thread(_open, content),
                headers={"Content-Type": mime},
                timeout=aiohttp.ClientTimeout(total=allowed_s, sock_connect=_CONNECT_TIMEOUT_S),
                # A refusal then comes before hundreds of megabytes are sent in vain.
                expect100=True,
                allow_redirects=False,
            ) as response:
                if response.status != 201:
                    raise self._failure(response.status, mime=mime)
                return _name_in(response)
        except TimeoutError as exc:
            # There is no time left for another try; some of these are connection errors too.
            raise self._away(exc) from exc
        except aiohttp.ClientConnectionError:
            raise
        except aiohttp.ClientError as exc:
            raise self._away(exc) from exc

    def _failure(self, status: int, *, mime: str = "") -> Exception:
        if status in {401, 403}:
            # Until the deployment that changes tokens has come to both sides.
            return ArtifactStoreAwayError(f"{self._url} refuses our token")
        if status == 413:
            return ArtifactRefusedError("an artifact larger than the store takes")
        if status == 415:
            return ArtifactRefusedError(f"the store takes no {mime}")
        if status in _NO_ROOM:
            return ArtifactRefusedError(f"the store's disk is full or does not work ({status})")
        return ArtifactStoreAwayError(f"{self._url} answered {status}")

    def _away(self, exc: Exception) -> ArtifactStoreAwayError:
        reason = "no answer in time" if isinstance(exc, TimeoutError) else str(exc)
        return ArtifactStoreAwayError(f"{self._url}: {reason}")

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(headers=self._headers)
        return self._session


def _name_in(response: aiohttp.ClientResponse) -> str:
    return response.headers.get("Content-Location", "").removeprefix("/")


def _open(content: bytes | Path) -> BinaryIO:
    return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")


def _measure(content: bytes | Path, keeping: Keeping) -> tuple[int, str]:
    """Size and sha256. Before it is sent: the HTTP client may have to read it again by itself.

    Raises:
        ArtifactRefusedError: it is too large.
    """
    digest = hashlib.sha256()
    with _open(content) as file:
        keeping.check(file.seek(0, os.SEEK_END))
        file.seek(0)
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
        return file.tell(), digest.hexdigest()
