"""The files of the web page beside this module to routes that send them, with headers that close everything else."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Response

from gastrovl.serving.refusals import RefusedError

FOLDER = Path(__file__).parent / "page"
INDEX = "index.html"
_MEDIA = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Nothing but these files, images that the person chose, and this server's own answers.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


def page_files() -> dict[str, tuple[bytes, str]]:
    """Content and media type of every file of the page, by its name."""
    found = {path.name: path for path in sorted(FOLDER.iterdir()) if path.suffix in _MEDIA}
    return {name: (path.read_bytes(), _MEDIA[path.suffix]) for name, path in found.items()}


def page_routes() -> APIRouter:
    """`/` and `/page/...`: files that are read once, here, so that no request names a path of the machine."""
    files = page_files()
    routes = APIRouter(include_in_schema=False)

    def send(name: str) -> Response:
        if name not in files:
            raise RefusedError(404, "not_found", "there is no such address")
        content, media = files[name]
        return Response(content, headers=HEADERS | {"content-type": media})

    @routes.api_route("/", methods=["GET", "HEAD"])
    async def index() -> Response:
        """The page itself."""
        return send(INDEX)

    @routes.api_route("/page/{name}", methods=["GET", "HEAD"])
    async def file(name: str) -> Response:
        """What it is made of."""
        return send(name)

    return routes
