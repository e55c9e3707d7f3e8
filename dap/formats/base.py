"""What every format is: a name, a media type, and a function to bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from dap.errors import InvalidParameter

Value = TypeVar("Value")


@dataclass(frozen=True)
class Format(Generic[Value]):
    """A way to write a value as bytes.

    Attributes:
        name: what `format=` and `--format` take.
        media_type: what `Accept` asks for and `Content-Type` says.
        extension: of a file, with its dot.
        description: one line for people.
        encode: value to bytes.
        decode: bytes to value, for formats that keep enough; it raises InputError on bytes of another kind.
    """

    name: str
    media_type: str
    extension: str
    description: str
    encode: Callable[[Value], bytes]
    decode: Callable[[bytes], Value] | None = None


def registry(*formats: Format[Value]) -> dict[str, Format[Value]]:
    """Formats by name, the default first."""
    return {entry.name: entry for entry in formats}


def find(formats: Mapping[str, Format[Value]], name: str) -> Format[Value]:
    """The format of that name.

    Raises:
        InvalidParameter: there is none; the message lists what there is.
    """
    if name not in formats:
        raise InvalidParameter(f"format is one of {', '.join(formats)}; got {name[:40]!r}")
    return formats[name]
