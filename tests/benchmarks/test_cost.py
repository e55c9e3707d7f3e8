"""Server-Timing, as the service writes it."""

from benchmarks.cost import server_timing


def test_the_stages_are_read_in_milliseconds() -> None:
    head = b"HTTP/1.1 200 OK\r\nserver-timing: decode;dur=1.6, queue;dur=0.1, inference;dur=80.0\r\nx-range: 100"
    assert server_timing(head) == {"decode": 1.6, "queue": 0.1, "inference": 80.0}
