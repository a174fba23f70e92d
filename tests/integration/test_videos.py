"""`capture.video` with a real ffmpeg, and without one."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import imageio_ffmpeg
import pytest

from swarm.browse.directory_store import DirectoryStore
from swarm.browse.engine import Engine
from swarm.browse.errors import ErrorCode, JobError
from swarm.browse.payload import BrowserJob, parse_browser_job
from swarm.browse.secrets import Secrets
from swarm.browse.visit import Deployment
from swarm.settings import BrowserSettings
from tests.programs import CHROMIUM, need

StartEngine = Callable[[Path], Engine]
MOVING = """<title>Moving</title><div id="box" style="width: 100px; height: 100px; background: red">
</div><script>let x = 0; setInterval(() => box.style.marginLeft = (x += 5) + 'px', 40)</script>"""


@pytest.fixture
def start_engine(tmp_path: Path) -> Iterator[StartEngine]:
    need(CHROMIUM, "chromium-headless-shell")
    started: list[Engine] = []

    def start(ffmpeg: Path) -> Engine:
        settings = BrowserSettings(sandbox=False, ffmpeg=ffmpeg)
        deployment = Deployment(settings, DirectoryStore(tmp_path, host="here"), Secrets({}))
        engine = Engine(deployment)
        started.append(engine)
        engine.start()
        return engine

    yield start
    for engine in started:
        engine.stop()


def moving(*, for_ms: int) -> BrowserJob:
    return parse_browser_job(
        {
            "html": MOVING,
            "steps": [{"kind": "wait_for", "ms": for_ms}],
            "capture": {"video": True},
        }
    )


def test_a_video_shows_what_the_page_did(start_engine: StartEngine) -> None:
    ffmpeg = Path(imageio_ffmpeg.get_ffmpeg_exe())
    result = start_engine(ffmpeg).run(moving(for_ms=1500))
    [video] = result.artifacts
    assert (video.kind, video.mime) == ("video", "video/webm")
    path = Path(urlsplit(video.url).path)
    # Decoded to the end: a file that was cut when its context closed would tell of an error.
    decoded = subprocess.run(
        [ffmpeg, "-v", "error", "-i", path, "-f", "framemd5", "-"],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert decoded.stderr == ""
    pictures = {line.split(",")[-1] for line in decoded.stdout.splitlines() if line[0] != "#"}
    assert len(pictures) > 5


def test_a_job_that_wants_a_video_is_refused_where_there_is_no_ffmpeg(
    start_engine: StartEngine, tmp_path: Path
) -> None:
    engine = start_engine(tmp_path / "ffmpeg")
    with pytest.raises(JobError, match=r"no .*/ffmpeg \(browser\.ffmpeg\)") as caught:
        engine.run(moving(for_ms=1))
    assert caught.value.code is ErrorCode.INVALID
