"""Which format an `Accept` header asks for (RFC 9110, section 12.5.1)."""

import re
from collections.abc import Mapping

from dap.errors import InvalidParameter, NotAcceptable
from dap.formats.base import Format, Value, find

_RANGE = re.compile(r"\s*([^\s/;,]+)/([^\s/;,]+)\s*((?:;[^,]*)?)")
_QUALITY = re.compile(r";\s*q\s*=\s*([01](?:\.\d{0,3})?)\s*(?:;|$)", re.IGNORECASE)


def choose(formats: Mapping[str, Format[Value]], name: str | None, accept: str | None) -> Format[Value]:
    """The format of that name, if one is named, otherwise the one that the header prefers.

    Raises:
        InvalidParameter: there is no format of that name.
        NotAcceptable: as `negotiate` says.
    """
    return find(formats, name) if name else negotiate(formats, accept)


def choose_many(formats: Mapping[str, Format[Value]], names: str) -> list[Format[Value]]:
    """The formats of a list of names with commas between them, in that order.

    Raises:
        InvalidParameter: there is no format of one of the names, or one comes twice.
    """
    chosen = [find(formats, name.strip()) for name in names.split(",")]
    if len(chosen) != len({entry.name for entry in chosen}):
        raise InvalidParameter(f"each format is named once; got {names[:200]!r}")
    return chosen


def negotiate(formats: Mapping[str, Format[Value]], accept: str | None) -> Format[Value]:
    """The format that the header prefers; among equals the first of the registry, which is also what no header gets.

    So of formats that share a media type the first is meant; the others go by their name only. A format has the quality
    of the most specific media range that fits it. Of a media range's parameters only `q` is looked at.

    Raises:
        NotAcceptable: none fits; the message lists what can be had.
    """
    ranges = _media_ranges(accept) if accept and accept.strip() else {("*", "*"): 1.0}
    qualities = {name: _quality(entry.media_type, ranges) for name, entry in formats.items()}
    best = max(qualities, key=lambda name: qualities[name])
    if qualities[best] == 0:
        offers = ", ".join(f"{entry.media_type} ({name})" for name, entry in formats.items())
        raise NotAcceptable(f"one of these can be written: {offers}; the request accepts {(accept or '')[:200]!r}")
    return formats[best]


def quality(media_type: str, accept: str | None) -> float:
    """How much the header wants a media type: 0, not at all, to 1; 1 for each where there is no header."""
    return _quality(media_type, _media_ranges(accept)) if accept and accept.strip() else 1.0


def _media_ranges(accept: str) -> dict[tuple[str, str], float]:
    """Quality by (type, subtype), in lower case; what cannot be read is left out."""
    ranges: dict[tuple[str, str], float] = {}
    for element in accept.lower().split(","):
        media_range = _RANGE.fullmatch(element)
        if media_range is None:
            continue
        quality = _QUALITY.search(media_range[3])
        ranges[media_range[1], media_range[2]] = min(1.0, float(quality[1])) if quality else 1.0
    return ranges


def _quality(media_type: str, ranges: Mapping[tuple[str, str], float]) -> float:
    kind, _, subtype = media_type.partition("/")
    fitting = (ranges[key] for key in ((kind, subtype), (kind, "*"), ("*", "*")) if key in ranges)
    return next(fitting, 0.0)
