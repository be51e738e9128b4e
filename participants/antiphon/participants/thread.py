"""The one thread of a database, for what may wait for a disk: the event loop never does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, TypeVar

T = TypeVar("T")

_Work = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any]]


class Thread:
    """Does one thing after the other, in the order in which it was asked to.

    It is a daemon: a disk that never answers must not keep a process from its end. Python's own pool of threads would.

    Args:
        name: what the thread is called.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._work: SimpleQueue[_Work | None] | None = None

    def run(self, work: Callable[[], T]) -> asyncio.Future[T]:
        """Have work done. It is done even if nobody waits for it any more.

        Returns:
            A future of the running event loop, with what the work returned or raised.
        """
        if self._work is None:
            self._work = SimpleQueue()
            threading.Thread(target=_serve, args=(self._work,), name=self._name, daemon=True).start()
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._work.put((loop, future, work))
        return future

    def stop(self) -> None:
        """Let the thread end after what it was asked to do. The next work starts another one."""
        if self._work is not None:
            self._work.put(None)
            self._work = None


def _serve(queue: SimpleQueue[_Work | None]) -> None:
    while (work := queue.get()) is not None:
        _do(*work)
        del work  # or what it holds would live until the next work comes


def _do(loop: asyncio.AbstractEventLoop, future: asyncio.Future[T], work: Callable[[], T]) -> None:
    result: T | None = None
    error: BaseException | None = None
    try:
        result = work()
    except BaseException as raised:
        error = raised
    with suppress(RuntimeError):  # the loop is closed, and nobody waits
        loop.call_soon_threadsafe(_tell, future, result, error)


def _tell(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
