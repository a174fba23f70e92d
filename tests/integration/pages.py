"""The site that workers visit."""

from __future__ import annotations

import time

from lab.pages import DemoServer
from lab.pages import Handler as PageHandler


class Site(DemoServer):
    """The demo's pages, and some that misbehave."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), time.sleep)
        self.RequestHandlerClass = _MisbehavingHandler
        self.visits: list[str] = []
        self.fail_first: dict[str, int] = {}
        #: Where to, by path.
        self.redirects: dict[str, str] = {}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


_REMEMBER = """<title>Memory</title><body></body><script>
const before = [document.cookie, localStorage.getItem("visited")].join("|");
document.cookie = "visited=yes"; localStorage.setItem("visited", "yes");
document.body.textContent = `before: ${before}, after: ${document.cookie}`;
</script>"""
_MISBEHAVING = {
    "/loop": "<title>Loop</title><script>while (true) {}</script>",
    "/later-loop": "<title>Loop</title><script>setTimeout(() => { while (true) {} }, 50)</script>",
    "/big": f"<title>Big</title><p>{'word ' * 100_000}</p>",
    "/memory": _REMEMBER,
}


class _MisbehavingHandler(PageHandler):
    def do_GET(self) -> None:  # noqa: N802 - http.server's name
        assert isinstance(self.server, Site)
        self.server.visits.append(self.path)
        left = self.server.fail_first.get(self.path, 0)
        if target := self.server.redirects.get(self.path):
            self.send_response(302)
            self.send_header("Location", target)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif left:
            self.server.fail_first[self.path] = left - 1
            self._send(503, "<title>Not now</title>")
        elif self.path in self.server.fail_first:
            self._send(200, "<title>At last</title><p>Here it is.</p>")
        elif self.path in _MISBEHAVING:
            self._send(200, _MISBEHAVING[self.path])
        else:
            super().do_GET()

    def _send(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
