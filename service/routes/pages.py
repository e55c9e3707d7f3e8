"""GET / and /docs: pages for people. They load nothing from other hosts."""

from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.responses import Response

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).parent.parent / "web"
_MEDIA_TYPES = {".css": "text/css", ".html": "text/html", ".js": "text/javascript"}


@router.get("/")
async def index() -> Response:
    """Drop a panorama, see its depth."""
    return _page("index.html")


@router.get("/docs")
async def docs() -> Response:
    """openapi.json for people."""
    return _page("docs.html")


@router.get("/web/{name}")
async def asset(name: str) -> Response:
    """Styles and scripts of the pages."""
    return _page(name)


def _page(name: str) -> Response:
    contents = _contents().get(name)
    if contents is None:
        raise HTTPException(404)
    return Response(contents, media_type=_MEDIA_TYPES[Path(name).suffix], headers={"Cache-Control": "no-cache"})


@cache
def _contents() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in _FOLDER.iterdir() if path.suffix in _MEDIA_TYPES}
