"""The demo's web site: varied pages, half of them slow, as the web is.

One file with the standard library only, so that it can be copied to a host and run there:
`python3 pages.py --bind 0.0.0.0 --port 8080`. Every answer depends on the address alone.
"""

from __future__ import annotations

import argparse
import html
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

DEFAULT_PORT = 8080
INDEX_PAGES = 40
MAX_SLOW_MS = 60_000
MAX_REDIRECTS = 50
AUTHORS = ("Ada Marsh", "Ben Okafor", "Chiara Lund", "Dev Patel", "Eva Novak")
WORDS = (
    "harbour",
    "lantern",
    "orchard",
    "granite",
    "meadow",
    "signal",
    "copper",
    "window",
    "river",
    "timber",
    "valley",
    "engine",
    "market",
    "pebble",
    "thunder",
    "garden",
    "bridge",
    "candle",
    "forest",
    "mirror",
    "anchor",
    "velvet",
    "summit",
    "willow",
)


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer; the handler adds the headers that are the same for all."""

    body: str
    status: int = HTTPStatus.OK
    location: str | None = None
    delay_s: float = 0.0


class DemoServer(ThreadingHTTPServer):
    """The site; `sleep` is how slow pages wait."""

    daemon_threads = True
    # A swarm of browsers connects at once; the default of 5 would refuse some.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], sleep: Callable[[float], None]) -> None:
        self.sleep = sleep
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD."""

    protocol_version = "HTTP/1.1"
    server_version = "pages"

    def do_GET(self) -> None:
        """Answer with a body."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Answer without one."""
        self._answer(with_body=False)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Keep quiet: a demo of 200 pages would fill the journal."""

    def _answer(self, *, with_body: bool) -> None:
        answer = respond(self.path)
        if answer.delay_s and isinstance(self.server, DemoServer):
            self.server.sleep(answer.delay_s)
        body = answer.body.encode()
        try:
            self.send_response(answer.status)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            if answer.location is not None:
                self.send_header("Location", answer.location)
            self.end_headers()
            if with_body:
                self.wfile.write(body)
        except ConnectionError:  # the browser has left; that is its right
            self.close_connection = True


def make_server(
    host: str = "127.0.0.1", port: int = 0, *, sleep: Callable[[float], None] = time.sleep
) -> DemoServer:
    """The site, bound but not serving yet; port 0 takes a free one (`server.server_port`)."""
    return DemoServer((host, port), sleep)


def respond(target: str) -> Answer:
    """Answer one request target, such as `/page/3` or `/slow?ms=200`."""
    url = urlsplit(target)
    query = dict(parse_qsl(url.query, keep_blank_values=True))
    match url.path.strip("/").split("/"):
        case [""]:
            return Answer(render_index())
        case ["page", number] if is_count(number) and int(number) > 0:
            return Answer(render_page(int(number)), delay_s=page_delay_s(int(number)))
        case ["status", code] if is_count(code) and 200 <= int(code) <= 599:
            return respond_status(int(code))
        case ["redirect", hops] if is_count(hops) and int(hops) <= MAX_REDIRECTS:
            target = f"/redirect/{int(hops) - 1}" if int(hops) > 1 else "/page/2"
            return Answer("", status=HTTPStatus.FOUND, location=target)
        case ["slow"] if is_count(ms := query.get("ms", "1000")) and int(ms) <= MAX_SLOW_MS:
            return Answer(wrap("Slow", f"<p>This took {ms} ms.</p>"), delay_s=int(ms) / 1000)
        case ["echo"]:
            return Answer(wrap("Echo", render_table(("field", "value"), list(query.items()))))
        case _:
            return respond_status(HTTPStatus.NOT_FOUND)


def respond_status(code: int) -> Answer:
    """A page with this status; 204 and 304 may not have a body."""
    if code in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED):
        return Answer("", status=code)
    return Answer(wrap(f"Status {code}", f"<p>You asked for {code}.</p>"), status=code)


def is_count(text: str) -> bool:
    """Whether text is a plain number of a sensible length."""
    return text.isascii() and text.isdigit() and len(text) <= 9


def page_delay_s(number: int) -> float:
    """Odd pages take 1 to 3 seconds, always the same for one page; even pages none."""
    return (1000 + number * 7919 % 2001) / 1000 if number % 2 else 0.0


def render_index() -> str:
    """Links to the pages."""
    links = "".join(
        f'<li><a href="/page/{number}">{page_title(number)}</a></li>'
        for number in range(1, INDEX_PAGES + 1)
    )
    return wrap("Pages", f"<h1>Pages</h1><ul>{links}</ul>")


def page_title(number: int) -> str:
    """Title of a page."""
    first, second = random.Random(number).sample(WORDS, 2)  # noqa: S311 - a seed, not a secret
    return f"{number}: The {first} and the {second}"


def render_page(number: int) -> str:
    """One of five kinds; slow and fast pages come in every kind."""
    renderers = (render_article, render_prices, render_form, render_image, render_script)
    chance = random.Random(number)  # noqa: S311 - a seed, not a secret
    title = page_title(number)
    body = renderers[(number // 2) % len(renderers)](number, chance)
    author = AUTHORS[number % len(AUTHORS)]
    head = (
        f'<meta name="description" content="{title}, a page of the demo">'
        f'<meta name="author" content="{author}">'
    )
    next_link = f'<nav><a id="next" href="/page/{number + 1}">Next</a> <a href="/">All</a></nav>'
    return wrap(title, f"<h1>{title}</h1>{body}{next_link}", head)


def sentence(chance: random.Random) -> str:
    """A made-up sentence."""
    words = " ".join(chance.choices(WORDS, k=chance.randint(8, 16)))
    return f"{words[0].upper()}{words[1:]}."


def render_article(number: int, chance: random.Random) -> str:
    """An article with headings, paragraphs and links."""
    sections = "".join(
        f"<h2>{chance.choice(WORDS).title()}</h2>"
        + "".join(f"<p>{' '.join(sentence(chance) for _ in range(4))}</p>" for _ in range(2))
        for _ in range(3)
    )
    byline = f'<p class="byline">By {AUTHORS[number % len(AUTHORS)]}</p>'
    return f'<article>{byline}{sections}<p>See <a href="/page/{number * 2}">more</a>.</p></article>'


def render_prices(number: int, chance: random.Random) -> str:
    """A table of prices."""
    rows = [(word, f"{chance.randint(100, 9999) / 100:.2f}") for word in chance.sample(WORDS, 8)]
    return f"<p>Prices of list {number}</p>{render_table(('item', 'price'), rows)}"


def render_form(number: int, chance: random.Random) -> str:
    """A form that /echo answers."""
    options = "".join(f"<option>{word}</option>" for word in chance.sample(WORDS, 4))
    return (
        f'<form action="/echo"><input type="hidden" name="page" value="{number}">'
        '<label>Name <input name="name" required></label>'
        f'<label>Kind <select name="kind">{options}</select></label>'
        '<button type="submit">Send</button></form>'
    )


def render_image(number: int, chance: random.Random) -> str:
    """A drawing, in the page itself."""
    circles = "".join(
        f'<circle cx="{chance.randint(0, 400)}" cy="{chance.randint(0, 240)}" '
        f'r="{chance.randint(10, 60)}" fill="hsl({chance.randint(0, 359)} 70% 60%)"/>'
        for _ in range(12)
    )
    return (
        f'<figure><svg width="400" height="240" role="img" aria-label="drawing {number}">'
        f"{circles}</svg><figcaption>Drawing {number}</figcaption></figure>"
    )


def render_script(number: int, chance: random.Random) -> str:
    """Text that only a browser sees: a script puts it there a moment after the page has loaded."""
    text = f"Rendered {number}: {sentence(chance)}"
    return (
        '<div id="app">Loading</div><script>addEventListener("load", () => setTimeout(() => {'
        f'const p = document.createElement("p"); p.id = "rendered"; p.textContent = "{text}";'
        'document.getElementById("app").replaceChildren(p); }, 100));</script>'
    )


def render_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; its cells may come from a request, so they are escaped."""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in header)
    lines = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table>"


def wrap(title: str, body: str, head: str = "") -> str:
    """A whole document."""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>{head}'
        "<style>body{font:16px/1.5 sans-serif;max-width:40em;margin:2em auto}"
        "td,th{padding:.2em 1em;border-bottom:1px solid #ccc;text-align:left}</style>"
        f"</head><body>{body}</body></html>\n"
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Serve until stopped."""
    parser = argparse.ArgumentParser(description="Serve the demo's pages.")
    parser.add_argument("--bind", default="127.0.0.1", help="address (127.0.0.1)")
    parser.add_argument("--port", default=DEFAULT_PORT, type=int, help=f"port ({DEFAULT_PORT})")
    options = parser.parse_args(argv)
    with make_server(options.bind, options.port) as server:
        print(f"serving on http://{options.bind}:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
