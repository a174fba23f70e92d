from __future__ import annotations

from pathlib import Path

from swarm.browse.video import can_record, lend
from swarm.settings import BrowserSettings


def with_program(path: Path, mode: int = 0o755) -> BrowserSettings:
    path.write_text("")
    path.chmod(mode)
    return BrowserSettings(ffmpeg=path)


def test_a_driver_finds_the_program_where_it_looks_for_its_own(tmp_path: Path) -> None:
    settings = with_program(tmp_path / "ffmpeg")
    environ: dict[str, str] = {}
    lend(settings, tmp_path, environ)
    [directory] = Path(environ["PLAYWRIGHT_BROWSERS_PATH"]).iterdir()
    assert directory.name.removeprefix("ffmpeg-").isdigit()
    assert (directory / "ffmpeg-linux").readlink() == settings.ffmpeg


def test_without_the_program_the_environment_stays_as_it_is(tmp_path: Path) -> None:
    environ: dict[str, str] = {}
    lend(BrowserSettings(ffmpeg=tmp_path / "none"), tmp_path, environ)
    assert environ == {}
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_run_is_no_program(tmp_path: Path) -> None:
    assert not can_record(with_program(tmp_path / "ffmpeg", mode=0o644))
