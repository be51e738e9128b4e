"""Lines for people and machines on stdout and stderr, which may have no reader any more."""

from __future__ import annotations

from contextlib import suppress
from typing import TextIO


class Lines:
    """Where a log's lines go. One that cannot be written is left out, as where its reader has ended or a disk is full:
    whoever logs goes on.

    Args:
        stream: takes the lines.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a line."""
        with suppress(OSError, ValueError):  # the latter where the stream is closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Have it written."""
        with suppress(OSError, ValueError):
            self._stream.flush()
