"""Files that are written for whoever runs a command, and such as only their owner may read."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from antiphon.contracts.errors import AntiphonError


class CannotWrite(AntiphonError):
    """A file that a command was to write cannot be written. The sentence says why."""


@contextmanager
def told_if_unwritable(what: str, path: Path) -> Generator[None]:
    """Turn what the system says against writing something into a sentence.

    Raises:
        CannotWrite: it cannot be written.
    """
    try:
        yield
    except OSError as error:
        where = path if error.filename is None else error.filename
        raise CannotWrite(f"cannot write {what} to {where}: {error.strerror}. Name another place.") from None


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on: it may hold passwords."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    # A path may hold bytes that are no UTF-8; they are written as they are.
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(text)


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter, and all above it that are missing, unless it is there."""
    if not folder.is_dir():
        make_private(folder.parent)
        folder.mkdir(mode=0o700)


def nats_string(text: str) -> str:
    """A text as a string of nats-server's configuration. It is no JSON: its only escapes are \\xXX, \\t, \\n, \\r, \\"
    and \\\\, and letters beyond ASCII stand as they are."""
    return '"' + "".join(_in_nats_string(letter) for letter in text) + '"'


def _in_nats_string(letter: str) -> str:
    if letter in '"\\':
        return f"\\{letter}"
    return f"\\x{ord(letter):02x}" if letter < " " or letter == "\x7f" else letter
