"""A cancel that nats-py would lose.

nats-py waits by `asyncio.wait_for`. Before Python 3.12 that function loses a cancel that comes together with what it
waits for (https://github.com/python/cpython/issues/86296): the caller goes on, and nobody cancels it a second time. A
process whose handler raised SystemExit would then never end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def heed_cancel(call: Awaitable[T]) -> T:
    """Await a call of nats-py, and be cancelled after it where nats-py lost the cancel.

    Raises:
        asyncio.CancelledError: the task was cancelled while it waited.
    """
    task = asyncio.current_task()
    cancels = task.cancelling() if task is not None else 0
    try:
        return await call
    finally:
        if task is not None and task.cancelling() > cancels:
            raise asyncio.CancelledError
