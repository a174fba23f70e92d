"""Where the brokers come from: variables, an env file, credentials, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm.brokers import Brokers
from swarm.environment import read_broker, read_brokers
from swarm.errors import ConfigError

PRIMARY = "redis://:one@primary:6379/0"
FALLBACK = "redis://:two@fallback:6379/0"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("swarm.environment.DEFAULT_CREDENTIALS_DIRECTORY", tmp_path / "credentials")


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(0o600)
    return path


def urls(brokers: Brokers) -> list[str]:
    return [broker.url for broker in brokers]


def problems(environ: dict[str, str]) -> dict[str, str]:
    with pytest.raises(ConfigError) as caught:
        read_brokers(environ)
    assert caught.value.exit_status == 2
    for password in ("one", "two"):
        assert f":{password}@" not in str(caught.value)
    return {problem.where: problem.expected for problem in caught.value.problems}


def test_the_fallback_counts_when_it_is_enabled() -> None:
    environ = {"REDIS_URL": PRIMARY, "REDIS_FALLBACK_URL": FALLBACK}
    assert urls(read_brokers(environ)) == [PRIMARY]
    for off in ("false", "0", "No", ""):
        assert read_brokers(environ | {"REDIS_FALLBACK_ENABLED": off}).fallback is None
    for on in ("true", "1", "YES", "on"):
        assert urls(read_brokers(environ | {"REDIS_FALLBACK_ENABLED": on})) == [PRIMARY, FALLBACK]


def test_each_wrong_variable_is_named() -> None:
    assert (
        "true or false"
        in problems({"REDIS_URL": PRIMARY, "REDIS_FALLBACK_ENABLED": "maybe"})[
            "REDIS_FALLBACK_ENABLED"
        ]
    )
    found = problems({"REDIS_URL": "http://:one@h", "REDIS_FALLBACK_ENABLED": "true"})
    assert set(found) == {"REDIS_URL", "REDIS_FALLBACK_URL"}
    assert "REDIS_FALLBACK_ENABLED is on" in found["REDIS_FALLBACK_URL"]


def test_one_redis_is_no_fallback_for_itself() -> None:
    same = "redis://other:two@primary"
    found = problems(
        {"REDIS_URL": PRIMARY, "REDIS_FALLBACK_URL": same, "REDIS_FALLBACK_ENABLED": "true"}
    )
    assert list(found) == ["REDIS_FALLBACK_URL"]
    other = {"REDIS_URL": PRIMARY, "REDIS_FALLBACK_URL": f"{same}/1"}
    assert read_brokers(other | {"REDIS_FALLBACK_ENABLED": "true"}).fallback is not None


def test_an_env_file_is_read_as_it_is(tmp_path: Path) -> None:
    text = (
        "\ufeff# brokers\r\nexport REDIS_URL='redis://:one@primary:6379/0' # hosted\r\n\r\n"
        f'REDIS_FALLBACK_URL = "{FALLBACK}"\n'
        "REDIS_FALLBACK_ENABLED=true # yes\nOTHER=${HOME}\nnot a line\n"
    )
    environ = {"SWARM_ENV_FILE": str(write(tmp_path / "brokers.env", text))}
    assert urls(read_brokers(environ)) == [PRIMARY, FALLBACK]
    environ["REDIS_URL"] = "redis://environment"
    assert urls(read_brokers(environ)) == ["redis://environment", FALLBACK]


def test_a_hash_in_a_password_is_no_comment(tmp_path: Path) -> None:
    write(tmp_path / ".env", "REDIS_URL=redis://:a%23b@h?x=1#f\nREDIS_URL=redis://:p#q@h\n")
    found = problems({})
    # The last one counts, and is wrong: the # ends the host of a URL.
    assert list(found) == ["REDIS_URL in .env"]


def test_a_wrong_value_names_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "x.env", "REDIS_URL=http://:one@h\n")
    assert list(problems({"SWARM_ENV_FILE": str(path)})) == [f"REDIS_URL in {path}"]


def test_a_reference_is_not_filled_in(tmp_path: Path) -> None:
    path = write(tmp_path / "x.env", "REDIS_URL=redis://:${PASSWORD}@h\n")
    [where] = problems({"SWARM_ENV_FILE": str(path)})
    assert where.endswith("REDIS_URL")


def test_an_env_file_that_is_named_must_be_there(tmp_path: Path) -> None:
    [where] = problems({"SWARM_ENV_FILE": str(tmp_path / "absent")})
    assert where.startswith("SWARM_ENV_FILE")


def test_the_working_directory_comes_last(tmp_path: Path) -> None:
    write(tmp_path / ".env", f"REDIS_URL=redis://here\nREDIS_FALLBACK_URL={FALLBACK}\n")
    assert read_broker({}).url == "redis://here"
    (tmp_path / "credentials").mkdir()
    write(tmp_path / "credentials" / "redis-url", "redis://set-up\n")
    brokers = read_brokers({"REDIS_FALLBACK_ENABLED": "no"})
    assert urls(brokers) == ["redis://set-up"]
    # Nor is anything else of it used then.
    assert list(problems({"REDIS_FALLBACK_ENABLED": "yes"})) == ["REDIS_FALLBACK_URL"]


def test_services_have_no_working_directory(tmp_path: Path) -> None:
    write(tmp_path / ".env", "REDIS_URL=redis://here\n")
    assert list(problems({"CREDENTIALS_DIRECTORY": str(tmp_path / "none")})) == ["REDIS_URL"]


def test_an_env_file_that_others_can_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / ".env", "REDIS_URL=redis://anywhere\n")
    path.chmod(0o666)
    assert list(problems({})) == [str(path)]


def test_credentials_of_both_brokers_say_as_whom(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "REDIS_FALLBACK_ENABLED": "true"}
    for name in ("redis-url", "redis-fallback-url"):
        write(tmp_path / name, f"redis://{name}\n")
        write(tmp_path / f"{name}-scaler", f"redis://{name}.scaler\n")
    assert urls(read_brokers(environ)) == ["redis://redis-url", "redis://redis-fallback-url"]
    as_scaler = read_brokers(environ, credential="redis-url-scaler")
    assert urls(as_scaler) == ["redis://redis-url.scaler", "redis://redis-fallback-url.scaler"]


def test_a_deployed_fallback_counts_unless_a_variable_says_otherwise(tmp_path: Path) -> None:
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path)}
    write(tmp_path / "redis-url", f"{PRIMARY}\n")
    assert urls(read_brokers(environ)) == [PRIMARY]
    write(tmp_path / "redis-fallback-url", f"{FALLBACK}\n")
    assert urls(read_brokers(environ)) == [PRIMARY, FALLBACK]
    assert urls(read_brokers(environ | {"REDIS_FALLBACK_ENABLED": "false"})) == [PRIMARY]
    # Of the scaler's user nothing was deployed here.
    with pytest.raises(ConfigError, match="REDIS_URL: got nothing"):
        read_brokers(environ, credential="redis-url-scaler")


def test_a_broker_named_by_hand_has_no_deployed_fallback_unasked(tmp_path: Path) -> None:
    for name, url in (("redis-url", PRIMARY), ("redis-fallback-url", FALLBACK)):
        write(tmp_path / name, f"{url}\n")
    environ = {"CREDENTIALS_DIRECTORY": str(tmp_path), "REDIS_URL": "redis://elsewhere"}
    assert urls(read_brokers(environ)) == ["redis://elsewhere"]
    environ["REDIS_FALLBACK_ENABLED"] = "true"
    assert urls(read_brokers(environ)) == ["redis://elsewhere", FALLBACK]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ("ssl_ca_certs=/absent.pem", "ssl_ca_certs=/absent.pem"),
        ("ssl_certfile=/absent.pem", "ssl_certfile=/absent.pem"),
        ("ssl_keyfile={key}", "ssl_certfile=FILE too"),
        ("ssl_ca_certs={key}", "certificates of authorities in PEM"),
        ("ssl_certfile={key}", "a certificate in PEM"),
        ("ssl_check_hostname=false", "no ssl_check_hostname"),
    ],
)
def test_what_tls_needs_is_looked_at_first(tmp_path: Path, parameters: str, expected: str) -> None:
    key = write(tmp_path / "a.key", "no PEM\n")
    with pytest.raises(ConfigError, match="REDIS_URL") as caught:
        read_brokers({"REDIS_URL": f"rediss://:one@h?{parameters.format(key=key)}"})
    assert expected in str(caught.value)


def test_parameters_of_tls_without_tls_are_a_mistake(tmp_path: Path) -> None:
    assert (
        "rediss://" in problems({"REDIS_URL": "redis://:one@h?ssl_ca_certs=/ca.pem"})["REDIS_URL"]
    )
