"""Streams backed up and restored by the server's own API, as `nats stream backup` and `nats stream restore` do it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import nats

CHUNK_BYTES: Final = 128 * 1024
SECONDS: Final = 60.0


@dataclass(frozen=True)
class StreamBackup:
    """A stream with its consumers: what the server says of it, and its files, packed by the server."""

    name: str
    config: dict[str, Any]
    state: dict[str, Any]
    chunks: tuple[bytes, ...]


async def back_up(url: str, stream: str) -> StreamBackup:
    """Take a backup of a stream that goes on."""
    client = await nats.connect(url)
    try:
        inbox = client.new_inbox()
        arriving = await client.subscribe(inbox)
        asked = {"deliver_subject": inbox, "no_consumers": False, "chunk_size": CHUNK_BYTES}
        answer = await _ask(client, f"$JS.API.STREAM.SNAPSHOT.{stream}", json.dumps(asked).encode())
        chunks = list[bytes]()
        while (message := await arriving.next_msg(SECONDS)).data:
            chunks.append(message.data)
            if message.reply:  # the server waits for this before it sends more
                await client.publish(message.reply, b"")
        return StreamBackup(stream, answer["config"], answer["state"], tuple(chunks))
    finally:
        await client.close()


async def restore(url: str, backup: StreamBackup) -> None:
    """Put a stream in the place of the one that is there."""
    client = await nats.connect(url)
    try:
        await _ask(client, f"$JS.API.STREAM.DELETE.{backup.name}", b"")
        asked = {"config": backup.config, "state": backup.state}
        answer = await _ask(client, f"$JS.API.STREAM.RESTORE.{backup.name}", json.dumps(asked).encode())
        for chunk in backup.chunks:
            await client.request(answer["deliver_subject"], chunk, timeout=SECONDS)
        last = await client.request(answer["deliver_subject"], b"", timeout=SECONDS)
        _check(json.loads(last.data))
    finally:
        await client.close()


async def _ask(client: Any, subject: str, body: bytes) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads((await client.request(subject, body, timeout=SECONDS)).data)
    _check(answer)
    return answer


def _check(answer: dict[str, Any]) -> None:
    assert "error" not in answer, answer["error"]
