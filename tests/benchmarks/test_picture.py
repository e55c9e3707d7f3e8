"""Bars as long as what they stand for."""

from itertools import pairwise
from xml.etree import ElementTree

import pytest

from benchmarks.cost import Cost
from benchmarks.picture import COLOURS, Bar, bar_of, draw

SVG = "{http://www.w3.org/2000/svg}"
STAGES = {"decode": 2.0, "queue": 0.5, "inference": 80.0, "encode": 4.0}


def test_what_is_left_of_a_request_is_the_way_between_the_stages() -> None:
    """9 ms beside queue and inference, of which 6 are for decoding and encoding."""
    bar = bar_of(Cost("JPEG to png", 0.1, at_most_ms=20, p50_ms=9.0, p95_ms=10, stages_ms=STAGES))
    assert [*bar.stages.values()] == [2.0, 0.5, 80.0, 4.0, 3.0]
    assert bar.total == 89.5


def test_medians_that_do_not_add_up_leave_nothing_and_not_less() -> None:
    bar = bar_of(Cost("", 0.1, at_most_ms=20, p50_ms=5.5, p95_ms=10, stages_ms=STAGES))
    assert bar.stages["HTTP, copies, hand-overs"] == 0


def test_all_bars_have_one_scale_and_begin_where_the_last_part_ended() -> None:
    short = Bar("<short>", dict.fromkeys(COLOURS, 10.0))
    long = Bar("long", dict.fromkeys(COLOURS, 40.0))
    drawn = ElementTree.fromstring(draw([short, long], "a & b"))
    parts = [rect for rect in drawn.iter(f"{SVG}rect") if rect.get("height") == "34"]
    ends = [(float(rect.attrib["x"]), float(rect.attrib["width"])) for rect in parts]
    assert len(ends) == 2 * len(COLOURS)
    assert ends[5][1] == pytest.approx(4 * ends[0][1], rel=0.01)
    for (x, width), (following, _) in pairwise(ends[:5]):
        assert x + width == pytest.approx(following, abs=0.11)
    assert ends[-1][0] + ends[-1][1] < float(drawn.attrib["width"])
    said = {text.text for text in drawn.iter(f"{SVG}text")}
    assert {"<short>", "long", "a & b", "50 ms", "200 ms", *COLOURS} <= said
