"""Messages of protocol buffers are stepped through within their bounds, and written as others write them.

The bytes are those of the examples in https://protobuf.dev/programming-guides/encoding/, or of Google's own library.
"""

import mmap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import OperatorSetIdProto, StringStringEntryProto

from dap.protobuf import BrokenMessage, Field, bytes_field, integer_field

NUMBER = bytes.fromhex("08 96 01")  # field 1: 150
TEXT = bytes.fromhex("12 07 74 65 73 74 69 6e 67")  # field 2: "testing"
NESTED = bytes.fromhex("1a 03 08 96 01")  # field 3: the message NUMBER
FIXED = bytes.fromhex("0d 00 00 80 3f 11 00 00 00 00 00 00 f0 3f")  # fields 1 and 2: 1.0, as float and as double


def found(buffer: bytes, *numbers: int) -> list[tuple[int, bytes]]:
    return [(field.number, field.content()) for field in Field.outermost(buffer).fields(*numbers)]


def test_fields_with_bytes_are_given_and_numbers_are_stepped_over() -> None:
    message = NUMBER + TEXT + FIXED + NESTED
    assert found(message) == [(2, b"testing"), (3, NUMBER)]
    assert found(message, 3) == [(3, NUMBER)]
    assert found(message, 1, 2) == [(2, b"testing")]
    assert found(b"") == []


def test_the_number_of_a_field_may_take_more_than_a_byte() -> None:
    assert found(bytes.fromhex("82 01 01 78")) == [(16, b"x")]
    assert bytes_field(16, b"x") == bytes.fromhex("82 01 01 78")


def test_a_field_says_where_in_the_buffer_it_is() -> None:
    inner = bytes_field(5, b"deep")
    message = NUMBER + bytes_field(4, TEXT + inner)
    (outer,) = Field.outermost(message).fields(4)
    (deep,) = outer.fields(5)
    assert message[deep.start : deep.end] == deep.content() == b"deep"
    assert message[deep.key : deep.end] == deep.encoded() == inner
    assert deep.size == 4


def test_a_mapped_file_is_read_as_bytes_are(tmp_path: Path) -> None:
    path = tmp_path / "message"
    path.write_bytes(TEXT + TEXT)
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert list(Field.outermost(mapped).contents(2)) == [b"testing", b"testing"]


def test_fields_are_replaced_and_the_rest_stays_as_it_is() -> None:
    message = Field.outermost(TEXT + NUMBER + TEXT + FIXED + NESTED)
    first, second, nested = message.fields()
    assert message.replaced([]) == message.content()
    assert message.replaced([(first, b""), (nested, NUMBER)]) == NUMBER + TEXT + FIXED + NUMBER
    assert message.replaced([(second, bytes_field(2, b"other"))]) == (
        TEXT + NUMBER + bytes.fromhex("12 05 6f 74 68 65 72") + FIXED + NESTED
    )


def test_fields_are_written_as_googles_library_writes_them() -> None:
    assert integer_field(1, 150) == NUMBER
    assert bytes_field(2, b"testing") == TEXT
    long = "x" * 300
    assert bytes_field(1, b"key") + bytes_field(2, long.encode()) == (
        StringStringEntryProto(key="key", value=long).SerializeToString()
    )
    for version in (1, 127, 128, 2**62):
        assert integer_field(2, version) == OperatorSetIdProto(version=version).SerializeToString()


@pytest.mark.parametrize(
    ("message", "complaint"),
    [
        ("12 08 74 65 73 74 69 6e 67", "a field of 8 bytes: expected 7 at most"),
        ("12 ff ff ff ff ff ff ff ff 7f 74", "a field of 9223372036854775807 bytes"),
        ("12", "ends within a number"),
        ("08 96", "ends within a number"),
        ("0d 00 00 80", "ends within a number"),
        ("11 00 00 00 00 00 00 f0", "ends within a number"),
        ("08 ff ff ff ff ff ff ff ff ff ff 01", "a number of more than 10 bytes"),
        ("0b 0c", "of wire type 3: expected 0, 1, 2 or 5"),
        ("0f", "of wire type 7: expected 0, 1, 2 or 5"),
    ],
)
def test_what_is_no_message_is_broken(message: str, complaint: str) -> None:
    with pytest.raises(BrokenMessage, match=f"(?i){complaint}"):
        found(bytes.fromhex(message))


@pytest.mark.parametrize("cut", [NUMBER[:2], TEXT[:4], FIXED[:3], NESTED[:1]])
def test_a_message_within_another_is_not_read_beyond_its_end(cut: bytes) -> None:
    """What follows in the buffer would complete it."""
    inner = next(Field.outermost(bytes_field(1, cut) + b"\x01" * 16).fields(1))
    with pytest.raises(BrokenMessage):
        list(inner.fields())


@given(data=st.binary(max_size=60))
def test_bytes_of_any_kind_are_a_message_or_broken(data: bytes) -> None:
    message = Field.outermost(data)
    try:
        fields = list(message.fields())
    except BrokenMessage:
        return
    assert message.replaced([(field, field.encoded()) for field in fields]) == data
