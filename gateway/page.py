"""The page at `/`: static files of this package, no build, nothing from elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from fastapi import APIRouter, Response

router = APIRouter(include_in_schema=False)

STATIC: Final = Path(__file__).with_name("static")
# The page shows what agents wrote: scripts come from our files only, nothing from elsewhere.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
FILES: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/static/omium.js": ("omium.js", "text/javascript; charset=utf-8"),
    "/static/omium.css": ("omium.css", "text/css; charset=utf-8"),
    "/docs": ("docs.html", "text/html; charset=utf-8"),
    "/static/docs.js": ("docs.js", "text/javascript; charset=utf-8"),
}


@router.get("/")
async def index() -> Response:
    """The page."""
    return _file("/")


@router.get("/docs")
async def docs() -> Response:
    """The API, readable."""
    return _file("/docs")


@router.get("/static/{name}")
async def static(name: str) -> Response:
    """Its script and its style."""
    return _file(f"/static/{name}")


def _file(route: str) -> Response:
    if route not in FILES:
        return Response(status_code=404)
    name, media_type = FILES[route]
    headers = {
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-cache",
    }
    return Response((STATIC / name).read_bytes(), headers=headers, media_type=media_type)
