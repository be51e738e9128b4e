"""`python -m tests.upgrade.steady PREFIX FILE`: a client of whichever release runs this begins sagas without a pause.

So many are under way at once until SIGTERM, and then none is begun any more. How each ended is a line of the file, in
JSON; the client ends when all of them have.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import sys
from pathlib import Path
from typing import Final

from antiphon.coordinator import Antiphon

from .sagas import SAGAS, require_release
from .scenarios import ENDED

AT_ONCE: Final = 16
PATIENCE_SECONDS: Final = 240.0
KINDS: Final = tuple(
    each
    for each in ENDED
    if each.name in ("completed", "refused", "list", "empty-list", "list-undone", "child-refused", "lost", "delivered")
)
"""Those that nobody does anything to, and that do not mind to be late."""


async def begin_without_a_pause(antiphon: Antiphon, prefix: str, file: Path) -> None:
    """Have so many sagas under way until SIGTERM, and note how each ended."""
    numbers, over = itertools.count(), asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, over.set)

    async def place() -> None:
        while not over.is_set():
            number = next(numbers)
            kind = KINDS[number % len(KINDS)]
            id = f"{prefix}-{kind.name}-{number // len(KINDS)}"
            handle = await antiphon.start(SAGAS[kind.saga], kind.start(), id=id)
            ended = await handle.result(timeout=PATIENCE_SECONDS)
            with file.open("a") as lines:
                lines.write(json.dumps({"kind": kind.name, "id": id, "outcome": ended.outcome}) + "\n")

    await asyncio.gather(*(place() for _ in range(AT_ONCE)))


async def main(prefix: str, file: Path) -> None:
    """Connect, and begin."""
    async with Antiphon.connect(os.environ["NATS_URL"], name="client") as antiphon:
        await begin_without_a_pause(antiphon, prefix, file)
    require_release()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], Path(sys.argv[2])))
