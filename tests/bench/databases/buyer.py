"""The peer's client: `python -m tests.bench.databases.buyer URL LOAD` runs a load and says what it saw."""

from __future__ import annotations

import asyncio
import json
import sys

import msgspec
import nats
import uvloop
from nats.aio.msg import Msg

from tests.bench.load import Driver, Load, Seen


async def drive(url: str, load: Load) -> Seen:
    """Place orders and see them end.

    Raises:
        ExceptionGroup: an order was not stored, or does not end.
    """
    connection = await nats.connect(url)
    stream = connection.jetstream()
    async with asyncio.TaskGroup() as group:

        async def place(order_id: str) -> None:
            ended = waiting[order_id] = asyncio.get_running_loop().create_future()
            order = json.dumps({"id": order_id, "fail": False}).encode()
            headers = {"Nats-Msg-Id": f"{order_id}:created", "content-type": "application/json"}
            await stream.publish("order.created", order, headers=headers)
            await ended
            driver.ended(order_id)

        async def on_completed(message: Msg) -> None:
            if ended := waiting.pop(json.loads(message.data)["id"], None):
                ended.set_result(None)

        def begin(order_id: str) -> None:
            group.create_task(place(order_id))

        waiting = dict[str, asyncio.Future[None]]()
        driver = Driver(load, begin)
        await connection.subscribe("order.completed", cb=on_completed)
        await connection.flush()
        seen = await driver.run()
    await connection.close()
    return seen


if __name__ == "__main__":
    _, server, what = sys.argv
    seen = uvloop.run(drive(server, msgspec.json.decode(what, type=Load)))
    sys.stdout.buffer.write(msgspec.json.encode(seen))
