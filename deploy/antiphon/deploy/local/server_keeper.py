"""A nats-server that is kept running: started again when it dies, on the same store and port."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from antiphon.contracts.errors import ServerUnreachable

from .children import Pauses, Say, how_it_ended
from .server import Server

SERVER: Final = "nats-server"
"""What the server is called in the terminal."""

WATCH_SECONDS: Final = 0.1
"""How often it is looked whether the server is there."""


async def keep_server(server: Server, note: Say) -> None:
    """Start a server again whenever it dies, until this is cancelled.

    Args:
        server: runs.
        note: told of each end and each new start.
    """
    pauses, born = Pauses(), time.monotonic()
    while True:
        while (code := server.exit_code) is None:
            await asyncio.sleep(WATCH_SECONDS)
        pause = pauses.after(time.monotonic() - born)
        note(SERVER, f"{how_it_ended(code)}; starting it again in {pause:g} s")
        await asyncio.sleep(pause)
        born = time.monotonic()
        try:
            # Launched by this thread: the system ends it together with the one that launched it.
            server.launch()
            await asyncio.to_thread(server.wait_ready)
        except ServerUnreachable as error:
            note(SERVER, str(error))
        else:
            note(SERVER, f"listens on {server.url} again")
