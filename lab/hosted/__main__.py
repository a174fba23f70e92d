"""`python -m lab.hosted serve` in front of a Redis, and its switches."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from lab.commands import LabError
from lab.hosted.certificates import Certificates, make_certificates
from lab.hosted.control import Control, ask
from lab.hosted.service import HostedRedis

CONTROL_PORT = 6390


def main(argv: Sequence[str] | None = None) -> int:
    """0 done, 1 failed, 2 wrong arguments."""
    options = _parser().parse_args(argv)
    try:
        if options.verb == "serve":
            return _serve(options)
        path = f"/{options.verb}" if options.verb in {"heal", "restart"} else "/"
        change = None if options.verb == "show" else dict(options.faults)
        print(json.dumps(ask(options.control, path, change)))
    except ValueError as exc:
        print(f"lab.hosted: {exc}", file=sys.stderr)
        return 2
    except (LabError, OSError) as exc:
        print(f"lab.hosted: {exc}", file=sys.stderr)
        return 1
    return 0


def _serve(options: argparse.Namespace) -> int:
    tls = None
    if options.certificates:
        names = [f"{'IP' if _is_address(name) else 'DNS'}:{name}" for name in options.names]
        certificates = Certificates(options.certificates)
        # The last one that is made; clients know the authority of the first start.
        if not certificates.client.exists():
            certificates = make_certificates(options.certificates, names)
        tls = certificates.server_context(ask_clients=options.client_certificates)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    service = HostedRedis(options.target, tls=tls, address=options.bind, port=options.port)
    with service, Control(service, port=options.control_port) as control:
        service.set(limit=options.limit)
        scheme = "rediss" if tls else "redis"
        print(f"{scheme}://{options.bind}:{service.port} switches {control.url}", flush=True)
        signal.sigwait({signal.SIGINT, signal.SIGTERM})
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m lab.hosted", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    serve = verbs.add_parser("serve", help="run until stopped")
    serve.add_argument("target", type=_place, metavar="HOST:PORT", help="the Redis behind it")
    serve.add_argument("--bind", default="127.0.0.1", help="address (127.0.0.1)")
    serve.add_argument("--port", default=0, type=int, help="port (a free one)")
    serve.add_argument(
        "--control-port", default=CONTROL_PORT, type=int, help=f"the switches' ({CONTROL_PORT})"
    )
    serve.add_argument(
        "--certificates",
        type=Path,
        metavar="DIR",
        help="TLS, with the certificates there, made if absent",
    )
    serve.add_argument(
        "--names", nargs="+", default=["localhost", "127.0.0.1"], help="whom they certify"
    )
    serve.add_argument(
        "--client-certificates", action="store_true", help="turn away whoever has none"
    )
    serve.add_argument("--limit", type=int, help="requests")
    for verb, help_text in (
        ("show", "tell the state"),
        ("set", "change faults, such as reach=refused slow_s=5 cuts=1 limit=100 used=99"),
        ("heal", "nothing is wrong any more"),
        ("restart", "cut all connections and forget all scripts"),
    ):
        switch = verbs.add_parser(verb, help=help_text)
        switch.add_argument("--control", default=f"http://127.0.0.1:{CONTROL_PORT}", metavar="URL")
        switch.set_defaults(faults=())
        if verb == "set":
            switch.add_argument("faults", nargs="+", type=_fault, metavar="FAULT=VALUE")
    return parser


def _place(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    return host, int(port)


def _fault(text: str) -> tuple[str, object]:
    name, separator, value = text.partition("=")
    if not separator:
        raise ValueError(text)
    if name == "reach":
        return name, value
    return name, json.loads("null" if value == "none" else value)


def _is_address(name: str) -> bool:
    return name.replace(".", "").isdigit()


if __name__ == "__main__":
    sys.exit(main())
