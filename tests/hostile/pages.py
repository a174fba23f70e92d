"""Markup that harms whoever opens it, by the path it is served under. Standard library only.

`{host}` and `{port}` stand for those that serve the page.
"""

from __future__ import annotations

import json

#: What a page must not get to see of the host.
FORBIDDEN_PLACES = (
    "file:///etc/passwd",
    "view-source:file:///etc/passwd",
    "jar:file:///etc/passwd!/x",
    "filesystem:file:///etc/passwd",
    "chrome://version",
    "chrome://crash",
    "devtools://devtools/bundled/inspector.html",
    "about:config",
    "javascript:document.body.textContent='root:'",
)

#: Hosts that no page may reach, in every way to write them, and the port of who notices.
FORBIDDEN_HOSTS = (
    "127.0.0.1",
    "localhost",
    "x.localhost",
    "[::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:10.77.0.10]",
    "[64:ff9b::a4d:a]",
    "0x7f000001",
    "2130706433",
    "0177.0.0.1",
    "127.1",
    "0.0.0.0",
    "10.77.0.10",
    "10.77.0.11",
    "10.77.0.12",
    "control",
    "worker1",
    "169.254.169.254",
)
WITNESS_PORT = 7777
#: Every way to an address that a page has, for one of the hosts: `?part=N`.
_WAYS = """
const add = (name, fields) => { try { document.body.append(
  Object.assign(document.createElement(name), fields)); } catch (e) {} };
const quiet = f => { try { const p = f(); p?.catch?.(() => 0); } catch (e) {} };
const part = Number(new URLSearchParams(location.search).get('part'));
for (const goal of HOSTS.slice(part, part + 1)) for (const scheme of ['http', 'https']) {
  const at = `${goal}:WITNESS`, url = `${scheme}://${at}/`;
  const led = location.origin + '/redirect?to=' + encodeURIComponent(url);
  for (const to of [url, led]) {
    quiet(() => fetch(to, {mode: 'no-cors'})); quiet(() => navigator.sendBeacon(to, 'x'));
    for (const name of ['img', 'script', 'iframe', 'video', 'embed', 'audio'])
      add(name, {src: to});
    add('object', {data: to});
    for (const rel of ['stylesheet', 'prefetch', 'preconnect', 'dns-prefetch', 'icon', 'manifest',
      'modulepreload', 'preload']) add('link', {rel, href: to, as: 'image'});
    quiet(() => new EventSource(to)); quiet(() => import(to));
    quiet(() => new Worker(URL.createObjectURL(new Blob([`importScripts("${to}")`]))));
  }
  quiet(() => new WebSocket(`${scheme === 'http' ? 'ws' : 'wss'}://${at}/`));
  quiet(() => { const t = new WebTransport(`https://${at}/`); t.ready.catch(() => 0);
    return t.closed; });
  quiet(() => { const pc = new RTCPeerConnection({iceServers: [{urls: `stun:${at}`},
      {urls: [`turn:${at}`, `turn:${at}?transport=tcp`], username: 'x', credential: 'x'}]});
    pc.createDataChannel('x'); return pc.createOffer().then(o => pc.setLocalDescription(o)); });
}"""
_REACH = _WAYS.replace("HOSTS", json.dumps(FORBIDDEN_HOSTS)).replace("WITNESS", str(WITNESS_PORT))

_FRAMES = "".join(f'<iframe src="{place}"></iframe>' for place in FORBIDDEN_PLACES)
_LINKS = "".join(f'<a id="a{n}" href="{url}">x</a>' for n, url in enumerate(FORBIDDEN_PLACES))
_GOING = "".join(
    f"try {{ location.href = {place!r}; }} catch (e) {{}}\n"
    for place in FORBIDDEN_PLACES
    if not place.startswith("javascript:")
)


def _script(text: str, body: str = "<p>here</p>") -> str:
    return f"<title>hostile</title><body>{body}</body><script>{text}</script>"


PAGES: dict[str, str] = {
    # Loops.
    "loop": _script("while (true) {}"),
    "later-loop": _script("addEventListener('load', () => setTimeout(() => { while (1) {} }, 50))"),
    "loop-at-end": _script(
        "for (const e of ['pagehide', 'beforeunload', 'unload', 'visibilitychange'])"
        " addEventListener(e, () => { while (1) {} });"
    ),
    "regex": _script("/^(a+)+$/.test('a'.repeat(60) + '!')"),
    "promises": _script("(function f() { Promise.resolve().then(f); })()"),
    "frames": _script("(function f() { requestAnimationFrame(f); document.body.append('x'); })()"),
    "reload": _script("location.replace('/page/reload?' + Math.random())"),
    "refresh": '<meta http-equiv="refresh" content="0"><title>again</title>',
    "history": _script("for (let i = 0; i < 1e6; i++) history.pushState(0, '', '?' + i)"),
    "write": _script("setInterval(() => document.write('x'.repeat(1e5)), 0)"),
    # Growth.
    "scroll": _script(
        "const grow = () => { for (let i = 0; i < 100; i++) {"
        " const p = document.createElement('p'); p.style.height = '300px';"
        " document.body.append(p); } };"
        "addEventListener('scroll', grow); setInterval(grow, 20); grow();"
    ),
    "dom": _script(
        "const all = []; for (let i = 0; i < 1e6; i++) all.push('<b>x</b>');"
        "document.body.innerHTML = all.join('')"
    ),
    "deep-dom": _script(
        "let at = document.body; for (let i = 0; i < 2e5; i++) {"
        " const next = document.createElement('div'); next.append('deep'); at.append(next);"
        " at = next; }"
    ),
    "deep-text": _script(
        "let at = document.body; for (let i = 0; i < 4000; i++) {"
        " const next = document.createElement('blockquote'); next.append('deep'); at.append(next);"
        " at = next; }"
    ),
    "nested-text": _script(
        "let at = document.body; for (let i = 0; i < 800; i++) {"
        " const next = document.createElement('blockquote'); next.append('deep'); at.append(next);"
        " at = next; }"
    ),
    "big-text": _script("document.body.textContent = 'word '.repeat(1e7)"),
    "wide-text": _script("document.body.innerHTML = '<b>x<i>y<a href=/z>z'.repeat(1e4)"),
    "huge-text": _script("document.body.textContent = 'x'.repeat(3e8)"),
    "huge-title": _script("document.title = 'x'.repeat(5e6)"),
    "huge-url": _script("history.pushState(0, '', '?' + 'x'.repeat(1.5e6))"),
    "huge-links": _script(
        "const long = 'data:' + 'x'.repeat(1e6); for (let i = 0; i < 500; i++) {"
        " const a = document.createElement('a'); a.href = long + i; document.body.append(a); }"
    ),
    "memory": _script(
        "const kept = []; (function eat() { for (let i = 0; i < 8; i++)"
        " kept.push(new Uint8Array(4 << 20).fill(i + 1)); setTimeout(eat, 1); })()"
    ),
    "heap": _script("const kept = []; while (true) kept.push(new Array(1e5).fill(Math.random()))"),
    "worker-memory": _script(
        "new Worker(URL.createObjectURL(new Blob([`const kept = []; while (true)"
        " kept.push(new Uint8Array(4 << 20).fill(kept.length + 1));`])))"
    ),
    "blobs": _script(
        "const kept = []; setInterval(() => { for (let i = 0; i < 4; i++) kept.push(new Blob("
        "[new Uint8Array(4 << 20).fill(kept.length)])); }, 10)"
    ),
    "storage": _script(
        "const open = indexedDB.open('x', 1); open.onupgradeneeded = () =>"
        " open.result.createObjectStore('s'); open.onsuccess = () => { let n = 0;"
        " setInterval(() => { try { open.result.transaction('s', 'readwrite').objectStore('s')"
        ".put(new Uint8Array(4 << 20).fill(n), n++); } catch (e) {} }, 10); }"
    ),
    "canvas": _script(
        "const kept = []; for (let i = 0; i < 40; i++) {"
        " const c = document.createElement('canvas'); c.width = c.height = 8000;"
        " c.getContext('2d').fillRect(0, 0, 9000, 9000); kept.push(c); }"
    ),
    # Storms.
    "alerts": _script("for (let i = 0; i < 200; i++) { alert(i); confirm(i); prompt(i); }"),
    "endless-alerts": _script("while (true) alert('again')"),
    "later-alerts": _script("addEventListener('load', () => setInterval(() => alert('x'), 0))"),
    "stay": _script(
        "addEventListener('beforeunload', e => { e.preventDefault(); e.returnValue = 'stay'; })",
        "<button>press</button>",
    ),
    "popups": _script(
        "setInterval(() => { for (let i = 0; i < 5; i++) window.open('/page/popups'); }, 5);"
        "onclick = () => window.open('/page/popups')",
        "<button>press</button>",
    ),
    "print": _script("setInterval(() => window.print(), 1)"),
    "permissions": _script(
        "const quiet = p => p && p.catch && p.catch(() => 0);"
        "setInterval(() => { quiet(Notification.requestPermission());"
        " navigator.geolocation?.getCurrentPosition(() => 0, () => 0);"
        " quiet(navigator.mediaDevices?.getUserMedia({audio: true, video: true}));"
        " quiet(document.documentElement.requestFullscreen());"
        " quiet(navigator.clipboard?.readText()); quiet(navigator.wakeLock?.request('screen'));"
        " quiet(document.body.requestPointerLock()); }, 5)"
    ),
    "console": _script("for (let i = 0; i < 1e5; i++) console.log('line', i, 'x'.repeat(200))"),
    "endless-console": _script(
        "setInterval(() => { for (let i = 0; i < 1000; i++) console.error('line', i, {i}); }, 0)"
    ),
    "huge-console": _script("setInterval(() => console.log('x'.repeat(5e6)), 50)"),
    "errors": _script(
        "setInterval(() => { for (let i = 0; i < 200; i++) queueMicrotask("
        "() => { throw new Error('x'.repeat(2000)); }); }, 1)"
    ),
    "fetches": _script(
        "let n = 0; setInterval(() => { for (let i = 0; i < 100; i++)"
        " fetch('/empty?' + n++).catch(() => 0); }, 10)"
    ),
    "sockets": _script(
        "setInterval(() => { for (let i = 0; i < 20; i++) {"
        " new WebSocket('ws://' + location.host + '/empty'); new EventSource('/drip-body'); } }, 5)"
    ),
    "workers": _script(
        "const code = URL.createObjectURL(new Blob(['while (true) {}']));"
        "for (let i = 0; i < 60; i++) { new Worker(code); }"
    ),
    "nested-workers": _script(
        "const text = 'const u = URL.createObjectURL(new Blob([self.text || text]));'"
        " + 'for (let i = 0; i < 3; i++) try { new Worker(u) } catch (e) {}';"
        "for (let i = 0; i < 50; i++) new Worker(URL.createObjectURL(new Blob("
        "['const text = ' + JSON.stringify(text) + ';' + text])))"
    ),
    "processes": _script(
        "for (let i = 1; i < 60; i++) { const f = document.createElement('iframe');"
        " f.src = `http://s${i}.localhost:{port}/empty`; document.body.append(f); }"
    ),
    "nested-frames": '<title>deeper</title><iframe src="/page/nested-frames?a"></iframe>'
    '<iframe src="/page/nested-frames?b"></iframe>',
    "downloads": _script(
        "setInterval(() => { const a = document.createElement('a'); a.href = '/endless-file?'"
        " + Math.random(); a.download = 'x'; document.body.append(a); a.click(); }, 20)"
    ),
    "ask-for-file": '<title>file</title><a id="file" href="/endless-file" download>take</a>',
    "odd-name": '<title>file</title><a id="file" href="/file-odd-name">take</a>',
    "inner-auth": '<title>auth</title><img src="/auth"><iframe src="/auth"></iframe>'
    '<script src="/auth"></script>here',
    # Ends.
    "close": _script("setTimeout(() => window.close(), 200)"),
    "close-at-once": _script("window.close()"),
    "remove": _script("document.documentElement.remove()"),
    "lies": _script(
        "Object.defineProperty(document, 'documentElement', {get: () => null});"
        "Object.fromEntries = () => ({a: NaN, b: new Date(), c: 10n ** 30n, d: [1 / 0]});"
        "Array.prototype.map = () => [undefined]; document.querySelectorAll = () => 7;"
        "Object.defineProperty(document, 'title', {get: () => ({a: {}})});"
        "JSON.parse = JSON.stringify = null; Promise = null; window.Element = null;"
    ),
    # Ways out of the page.
    "places": _script(_GOING, _LINKS),
    "inner-places": f"<title>inner</title>{_FRAMES}here",
    "reach": _script(_REACH),
    "blob": _script(
        "location.href = URL.createObjectURL(new Blob(['<p>from blob</p>'], {type: 'text/html'}))"
    ),
    "webrtc": _script(
        "const told = document.querySelector('p'); const pc = new RTCPeerConnection({iceServers:"
        " [{urls: 'stun:{host}:{port}'}]}); pc.createDataChannel('x');"
        "pc.onicecandidate = e => { told.textContent += ' ' + (e.candidate"
        " ? e.candidate.candidate : 'END'); };"
        "pc.createOffer().then(o => pc.setLocalDescription(o));"
    ),
    "frame-memory": _script(
        "for (let i = 1; i < 9; i++) { const f = document.createElement('iframe');"
        " f.src = `http://m${i}.localhost:{port}/page/some-memory`; document.body.append(f); }"
    ),
    "some-memory": _script(
        "const kept = []; let n = 0; setInterval(() => { if (n++ < 80)"
        " kept.push(new Uint8Array(4 << 20).fill(n)); }, 5)"
    ),
}
