"""Lines on stderr of processes that draw nothing, so that no foreign text gets there as it is."""

from __future__ import annotations

import sys
import traceback

from antiphon.contracts.foreign_text import harmless, harmless_lines
from antiphon.link.lines import Lines


def warn(*lines: str) -> None:
    """Write lines to stderr, each of them harmless."""
    Lines(sys.stderr).write("".join(f"{harmless(line)}\n" for line in lines))


def warn_fault(error: BaseException) -> None:
    """Write a fault with its traceback to stderr. Its text may quote what somebody else wrote."""
    Lines(sys.stderr).write(f"{harmless_lines(''.join(traceback.format_exception(error)).rstrip())}\n")
