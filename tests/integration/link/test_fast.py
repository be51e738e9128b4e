"""Our parser hands out what nats-py's would, however the bytes are cut."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.errors import ProtocolError
from nats.protocol.parser import Parser

from antiphon.link.fast import LINE_BYTES_MAX, Frames
from antiphon.link.faults import say
from antiphon.link.guard import Guard

Told = list[tuple[object, ...]]

OURS = b"7"
subjects = st.sampled_from([b"a", b"evt.1.order.o-1.client.start", b"_INBOX.x.12"])
payloads = st.binary(max_size=40) | st.sampled_from([b"\r\n", b"MSG a 7 3\r\n", b"PING\r\n"])


@st.composite
def frames(draw: st.DrawFn) -> bytes:
    """One frame as the server sends it."""
    match draw(st.sampled_from(["msg", "msg", "msg", "hmsg", "hmsg", "other"])):
        case "other":
            return draw(st.sampled_from([b"PING\r\n", b"PONG\r\n", b"+OK\r\n", b'INFO {"server_id": "x"}\r\n', ERROR]))
        case kind:
            sid = draw(st.sampled_from([OURS, OURS, b"8"]))
            reply = draw(st.sampled_from([b"", b"$JS.ACK.EVENTS.coordinator.1.2.3.4.5 "]))
            head, data = b"", draw(payloads)
            sizes = b"%d" % len(data)
            if kind == "hmsg":
                head = draw(st.sampled_from([b"NATS/1.0 408\r\n\r\n", b"NATS/1.0\r\nA: b\r\n\r\n"]))
                sizes = b"%d %d" % (len(head), len(head) + len(data))
            name = b"HMSG" if kind == "hmsg" else b"MSG"
            return b"%b %b %b %b%b\r\n%b%b\r\n" % (name, draw(subjects), sid, reply, sizes, head, data)


ERROR = b"-ERR 'Permissions Violation for Publish to \"x\"'\r\n"


class Client:
    """What the parsers call; it writes down what it is told."""

    def __init__(self) -> None:
        self.told: Told = []

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None) -> None:
        self.told.append(("message", sid, subject, reply, data, headers))

    async def _process_err(self, text: str) -> None:
        self.told.append(("error", text))

    async def _process_ping(self) -> None:
        self.told.append(("ping",))

    async def _process_pong(self) -> None:
        self.told.append(("pong",))

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.told.append(("info", info["server_id"]))


def ours(client: Client) -> Frames:
    def handle(subject: str, reply: str, data: bytes, headers: bytes | None) -> None:
        client.told.append(("message", int(OURS), subject.encode(), reply.encode(), data, headers))

    return Frames(client, {OURS: handle}, Guard(say))


async def told(parser: Any, client: Client, pieces: list[bytes]) -> Told:
    for piece in pieces:
        await parser.parse(piece)
    return client.told


@given(st.lists(frames(), max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_the_same_messages_in_the_same_order_as_nats_py_gives(stream: list[bytes], cuts: list[int]) -> None:
    data = b"".join(stream)
    ends = [*sorted(cut for cut in cuts if cut < len(data)), len(data)]
    pieces = [data[begin:end] for begin, end in zip([0, *ends], ends, strict=False)]
    mine, theirs = Client(), Client()
    assert asyncio.run(told(ours(mine), mine, pieces)) == asyncio.run(told(Parser(theirs), theirs, pieces))


@pytest.mark.parametrize(
    "wrong",
    [
        b"MSG a\r\n",
        b"HMSG a 7 3\r\nabc\r\n",
        b"MSG a 7 x\r\n",
        b"MSG a 7 -1\r\n\r\n",
        b"HMSG a 7 + 3\r\nabc\r\n",
        b"x" * (LINE_BYTES_MAX + 1),
    ],
)
async def test_what_is_no_frame_is_a_protocol_error(wrong: bytes) -> None:
    with pytest.raises(ProtocolError):
        await ours(Client()).parse(wrong)


async def test_what_was_read_before_a_reset_is_forgotten() -> None:
    client = Client()
    parser = ours(client)
    await parser.parse(b"MSG a 7 5\r\nab")
    parser.reset()
    await parser.parse(b"MSG a 7 1\r\nz\r\n")
    assert client.told == [("message", 7, b"a", b"", b"z", None)]


async def test_a_connection_given_up_in_mid_read_hands_out_nothing_more() -> None:
    client = Client()
    parser = ours(client)

    async def give_up(text: str) -> None:
        parser.reset()

    client._process_err = give_up  # type: ignore[method-assign]
    await parser.parse(ERROR + b"MSG a 7 1\r\nz\r\n")
    assert client.told == []
