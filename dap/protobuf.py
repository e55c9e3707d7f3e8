"""Messages of protocol buffers in their wire format: what is in them and where, and how they are written.

A message is a flat list of fields, each with its number and either a number or, with its length, bytes: text, packed
numbers or a further message. What a field means the reader has to know: https://protobuf.dev/programming-guides/encoding/

Messages may come from anybody. What is read of one never reaches beyond its end, and nothing is copied that is not
asked for, so a message of a gigabyte is looked through by stepping over what is long in it.
"""

import mmap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

Buffer = mmap.mmap | bytes

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types; groups, which are 3 and 4, nobody writes any more
_VARINT_BITS = 70  # of ten bytes, the longest


class BrokenMessage(ValueError):
    """What should be a message is cut off, has a field that is longer than itself, or is none."""


class Field(NamedTuple):
    """Bytes in a message, and where they are.

    Attributes:
        buffer: that holds the outermost message, as bytes or mapped.
        number: of the field; 0 of the outermost message, which is in none.
        key: where in the buffer the field begins, with its number and length.
        start: where its bytes begin.
        end: where they, and the field, end.
    """

    buffer: Buffer
    number: int
    key: int
    start: int
    end: int

    @classmethod
    def outermost(cls, buffer: Buffer) -> "Field":
        """The message that all of the buffer is."""
        return cls(buffer, 0, 0, 0, len(buffer))

    @property
    def size(self) -> int:
        """How many bytes, without number and length of the field."""
        return self.end - self.start

    def content(self) -> bytes:
        """The bytes, copied."""
        return self.buffer[self.start : self.end]

    def encoded(self) -> bytes:
        """The whole field, copied: number and length, and the bytes."""
        return self.buffer[self.key : self.end]

    def fields(self, *numbers: int) -> Iterator["Field"]:
        """The fields with bytes of this one, which is a message, in order; those that hold a number are left out.

        Args:
            numbers: of the fields to give; none for all.

        Raises:
            BrokenMessage: it is no message; the fields before the place where that shows have been given.
        """
        buffer, _, _, position, end = self
        while position < end:
            key = position
            tag, position = _varint(buffer, position, end)
            wire_type = tag & 7
            if wire_type == _BYTES:
                length, position = _varint(buffer, position, end)
                if length > end - position:
                    raise BrokenMessage(f"A field of {length} bytes: expected {end - position} at most.")
                if not numbers or tag >> 3 in numbers:
                    yield Field(buffer, tag >> 3, key, position, position + length)
                position += length
            elif wire_type == _VARINT:
                _, position = _varint(buffer, position, end)
            elif wire_type in (_FIXED64, _FIXED32):
                position += 8 if wire_type == _FIXED64 else 4
            else:
                raise BrokenMessage(f"A field of wire type {wire_type}: expected 0, 1, 2 or 5.")
        if position != end:
            raise BrokenMessage("The message ends within a number.")

    def contents(self, number: int) -> Iterator[bytes]:
        """The bytes, copied, of each field with this number of this message."""
        return (field.content() for field in self.fields(number))

    def replaced(self, replacements: Sequence[tuple["Field", bytes]]) -> bytes:
        """The bytes of this message with others for some of its fields.

        Args:
            replacements: a field of this message and what to write for the whole of it; in the order of the fields.
        """
        parts: list[bytes] = []
        start = self.start
        for field, other in replacements:
            parts += [self.buffer[start : field.key], other]
            start = field.end
        return b"".join((*parts, self.buffer[start : self.end]))


def bytes_field(number: int, content: bytes) -> bytes:
    """A field that holds bytes: text, packed numbers or a message."""
    return _to_varint(number << 3 | _BYTES) + _to_varint(len(content)) + content


def integer_field(number: int, value: int) -> bytes:
    """A field that holds a whole number, which is not negative."""
    return _to_varint(number << 3 | _VARINT) + _to_varint(value)


def _varint(buffer: Buffer, position: int, end: int) -> tuple[int, int]:
    """The number that begins at `position`, and where it has ended."""
    value = 0
    for shift in range(0, _VARINT_BITS, 7):
        if position >= end:
            raise BrokenMessage("The message ends within a number.")
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise BrokenMessage(f"A number of more than {_VARINT_BITS // 7} bytes.")


def _to_varint(value: int) -> bytes:
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*parts, value))
