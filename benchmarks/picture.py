"""Where the time of requests goes, as a picture: a stacked bar for each kind of request (SVG 1.1)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from benchmarks.cost import Cost

# Okabe and Ito's colours, which people with any colour vision tell apart (jfly.uni-koeln.de/color).
COLOURS = {
    "decode": "#56B4E9",
    "queue": "#999999",
    "compute": "#E69F00",
    "encode": "#009E73",
    "HTTP, copies, hand-overs": "#CC79A7",
}

_WIDTH, _NAMES, _MARGIN = 960, 290, 20
_BAR, _GAP, _TOP = 34, 18, 70
_FONT = 'font-family="sans-serif" font-size="14"'
_DIGIT = 8.5


@dataclass(frozen=True)
class Bar:
    """One kind of request: its name, and the milliseconds of each of `COLOURS`."""

    name: str
    stages: Mapping[str, float]

    @property
    def total(self) -> float:
        return sum(self.stages.values())


def bar_of(cost: Cost) -> Bar:
    """What a request took: the medians of its stages, and what is left of the median of the whole.

    Inference is called compute; on a GPU the way of the pixels there and of the depth back is in it.
    """
    stages = cost.stages_ms
    rest = cost.p50_ms - stages["decode"] - stages["encode"]
    seconds = (stages["decode"], stages["queue"], stages["inference"], stages["encode"], max(0.0, rest))
    return Bar(cost.name, dict(zip(COLOURS, seconds, strict=True)))


def draw(bars: Sequence[Bar], title: str) -> str:
    """The picture as SVG, on white, with one scale for all bars."""
    height = _TOP + len(bars) * (_BAR + _GAP) + _MARGIN
    scale = (_WIDTH - _NAMES - _MARGIN - 70) / max(bar.total for bar in bars)
    rows = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
        f'viewBox="0 0 {_WIDTH} {height}" {_FONT} fill="#222">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{_MARGIN}" y="26" font-weight="bold">{escape(title)}</text>',
        *_legend(),
    ]
    for place, bar in enumerate(bars):
        rows += _row(bar, _TOP + place * (_BAR + _GAP), scale)
    return "\n".join([*rows, "</svg>", ""])


def _legend() -> list[str]:
    rows, x = [], float(_MARGIN)
    for name, colour in COLOURS.items():
        rows.append(f'<rect x="{x:.0f}" y="41" width="13" height="13" fill="{colour}"/>')
        rows.append(f'<text x="{x + 19:.0f}" y="53">{escape(name)}</text>')
        x += 19 + _DIGIT * len(name) + 18
    return rows


def _row(bar: Bar, y: int, scale: float) -> list[str]:
    middle = y + _BAR / 2 + 5
    rows = [f'<text x="{_NAMES - 10}" y="{middle:.0f}" text-anchor="end">{escape(bar.name)}</text>']
    x = float(_NAMES)
    for name, milliseconds in bar.stages.items():
        width = scale * milliseconds
        text = f"{milliseconds:.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"
        rows.append(f'<rect x="{x:.1f}" y="{y}" width="{width:.1f}" height="{_BAR}" fill="{COLOURS[name]}"/>')
        if width > _DIGIT * (len(text) + 1):
            rows.append(f'<text x="{x + width / 2:.1f}" y="{middle:.0f}" text-anchor="middle">{text}</text>')
        x += width
    return [*rows, f'<text x="{x + 8:.0f}" y="{middle:.0f}" font-weight="bold">{bar.total:.0f} ms</text>']
