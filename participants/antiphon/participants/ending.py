"""The end of a participant's process after a signal, although a handler or a thread in it may never end."""

from __future__ import annotations

import asyncio
import faulthandler
import signal
import sys
import threading
import traceback
from collections.abc import Generator, Iterable
from concurrent.futures import thread as executors
from contextlib import contextmanager
from types import FrameType
from typing import Final

CLOSE_SECONDS: Final = 3.0
"""How long connections may take to close where a handler or a thread would keep the process from its end."""


class Ending:
    """The signal to end, and the end by force where a process does not follow it.

    Args:
        seconds: after how long a process that was told to end is ended by force. The system's stacks go to stderr then,
            and the exit code is 1. That needs no loop: a handler may stand in it and never let it turn.
    """

    def __init__(self, seconds: float) -> None:
        self.told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._loop = asyncio.get_running_loop()
        self._seconds = seconds
        self._threads = set(threading.enumerate())
        self._is_armed = False

    def tell(self, number: int, frame: FrameType | None) -> None:
        """Tell the process to end. The interpreter calls this, wherever the main thread stands."""
        if not self._is_armed:
            self._arm(self._seconds)
            self._loop.call_soon_threadsafe(self._complete)

    def settle(self, are_handlers_left: bool) -> None:
        """The worker has drained: end by force only where handlers or threads are left."""
        if not self._is_armed:
            return
        if are_handlers_left or self.threads():
            self._arm(CLOSE_SECONDS)
        else:
            faulthandler.cancel_dump_traceback_later()

    def threads(self) -> list[str]:
        """The stacks of the threads that would keep the process from its end."""
        frames = sys._current_frames()  # pyright: ignore[reportPrivateUsage] # documented, for this very purpose
        begun = [thread for thread in threading.enumerate() if thread not in self._threads and not thread.daemon]
        standing = [frames.get(thread.ident or 0) for thread in begun]
        return ["".join(traceback.format_stack(frame)) for frame in standing if frame is not None and _is_busy(frame)]

    def _complete(self) -> None:
        if not self.told.done():
            self.told.set_result(None)

    def _arm(self, seconds: float) -> None:
        self._is_armed = True
        faulthandler.dump_traceback_later(seconds, exit=True, file=sys.__stderr__ or sys.stderr)


@contextmanager
def signals(ending: Ending, numbers: Iterable[int] = (signal.SIGTERM, signal.SIGINT)) -> Generator[None]:
    """Have signals tell the process to end.

    The interpreter takes them and not the loop, which a handler may keep from turning.
    """
    before = {number: signal.signal(number, ending.tell) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_busy(frame: FrameType) -> bool:
    """Whether a thread works; an idle thread of an executor waits in its outermost function."""
    return (frame.f_code.co_filename, frame.f_code.co_name) != (executors.__file__, "_worker")
