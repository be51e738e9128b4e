"""`python -m antiphon.deploy.chaos.holder FILE`: holds the write lock of an SQLite database until its stdin ends."""

from __future__ import annotations

import sqlite3
import sys
from typing import Final

from ..render.plain import warn

HELD: Final = "held"
"""What it says once it has the lock."""
WAIT_SECONDS: Final = 30.0


def hold(path: str) -> None:
    """Take the lock, say so, and keep it until nobody holds the other end of stdin any more.

    Raises:
        sqlite3.OperationalError: others had it for half a minute.
    """
    database = sqlite3.connect(path, timeout=WAIT_SECONDS, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    warn(HELD)
    sys.stdin.read()
    database.execute("ROLLBACK")
    database.close()


if __name__ == "__main__":
    hold(sys.argv[1])
