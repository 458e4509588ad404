"""The pages themselves: a fixed set of files, read once; where they were not built, a page that says how."""

import gzip
import mimetypes
from importlib.resources import files
from importlib.resources.abc import Traversable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "vary": "accept-encoding",
}
MISSING = """<!doctype html><html lang="en"><meta charset="utf-8"><title>fairlead</title>
<h1>The pages were not built</h1>
<p>The server runs, and programs can use it under <code>/v1</code>. To build the pages, in the sources:</p>
<pre>make pages</pre>
<p>then start the server again. An installed wheel holds them already.</p></html>
"""


class Bundle:
    """The files of the built pages, by their path at this server."""

    def __init__(self, folder: Traversable | None = None) -> None:
        folder = folder or files("fairlead.web") / "bundle"
        self._files: dict[str, bytes] = {}
        if (folder / "index.html").is_file():
            self._files["/"] = (folder / "index.html").read_bytes()
            for file in (folder / "assets").iterdir():
                self._files[f"/assets/{file.name}"] = file.read_bytes()
        self._packed = {path: gzip.compress(data, mtime=0) for path, data in self._files.items()}

    def paths(self) -> list[str]:
        """Where something is."""
        return list(self._files) or ["/"]

    def routes(self) -> list[Route]:
        """A route for each file."""
        return [Route(path, self._show, methods=["GET"]) for path in self.paths()]

    async def _show(self, request: Request) -> Response:
        path = request.url.path
        if path not in self._files:
            return Response(MISSING, 503, HEADERS, "text/html")
        kind = mimetypes.guess_type(path)[0] or "application/octet-stream" if path != "/" else "text/html"
        kept = "no-cache" if path == "/" else "public, max-age=31536000, immutable"  # assets bear their hash
        headers = HEADERS | {"cache-control": kept}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self._packed[path], headers=headers | {"content-encoding": "gzip"}, media_type=kind)
        return Response(self._files[path], headers=headers, media_type=kind)
