"""SHA-256 of files (FIPS 180-4): what tells one file's content from another's."""

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Of the whole file, 64 hexadecimal digits in lower case; read piece by piece, so that it may be of any size.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
