"""What every format is: a name, a media type, and a function to bytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from dap.depth import FILLS, Fill
from dap.errors import InvalidParameter
from dap.formats.colormaps import COLORMAPS

Value = TypeVar("Value")


@dataclass(frozen=True)
class EncodeOptions:
    """How a value is written, by the formats to which it matters.

    Attributes:
        fill: what float formats of depth hold where nothing is valid: NaN, the range in metres, or zero.
        colormap: name of the colours of pictures for the eye, one of `dap.formats.colormaps.COLORMAPS`.
    """

    fill: Fill = "nan"
    colormap: str = "turbo"

    def __post_init__(self) -> None:
        """Refuse what is no option.

        Raises:
            InvalidParameter: no such fill or colormap.
        """
        if self.fill not in FILLS:
            raise InvalidParameter(f"fill is one of {', '.join(FILLS)}; got {str(self.fill)[:40]!r}")
        if self.colormap not in COLORMAPS:
            raise InvalidParameter(f"colormap is one of {', '.join(COLORMAPS)}; got {str(self.colormap)[:40]!r}")


DEFAULT_OPTIONS = EncodeOptions()


@dataclass(frozen=True)
class Numbers:
    """How a number of the file becomes metres: metres = number / scale.

    Attributes:
        scale: numbers in a metre.
        invalid: the number that is no depth; None where `EncodeOptions.fill` says.
    """

    scale: float = 1.0
    invalid: float | None = None

    def invalid_text(self, fill: Fill, range: float | None) -> str:
        """The number that is no depth, for a header or an attribute: `0`, `NaN`, or the range in metres.

        Raises:
            InvalidParameter: the range is the fill, and there is none.
        """
        if self.invalid is not None:
            return f"{self.invalid:g}"
        if fill == "range" and range is None:
            raise InvalidParameter("fill=range needs a range; none was asked for")
        return {"nan": "NaN", "zero": "0", "range": f"{range or 0:g}"}[fill]


@dataclass(frozen=True)
class Format(Generic[Value]):
    """A way to write a value as bytes.

    Attributes:
        name: what `format=` and `--format` take.
        media_type: what `Accept` asks for and `Content-Type` says.
        extension: of a file, with its dot.
        description: one line for people.
        write: value and options to bytes; `encode` is how it is called.
        decode: bytes to value, for formats that keep enough; it raises InputError on bytes of another kind.
        numbers: what the numbers of a depth mean; None where a reader needs no such word.
    """

    name: str
    media_type: str
    extension: str
    description: str
    write: Callable[[Value, EncodeOptions], bytes]
    decode: Callable[[bytes], Value] | None = None
    numbers: Numbers | None = None

    def encode(self, value: Value, options: EncodeOptions = DEFAULT_OPTIONS) -> bytes:
        """The value as bytes."""
        return self.write(value, options)


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
