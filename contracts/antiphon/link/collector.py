"""Python's garbage collector, set for processes that hold many values for a while and make hardly any cycles."""

from __future__ import annotations

import gc
from typing import Final

NEW_OBJECTS: Final = 50_000
"""After how many new containers the collector looks for cycles. Its default of 700 is reached by a dozen facts, and
each fourth or so of those looks walks what a cache holds: a seventh of a coordinator's time (measured)."""


def settle_collector() -> None:
    """Call once a process has loaded what it needs: that lives as long as the process, and is not walked again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
