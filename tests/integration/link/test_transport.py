"""Where nats-py's private parts are not the known ones, the link uses none of them."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nkeys  # type: ignore[import-untyped] # it has no annotations
import pytest
from nats.aio.client import Client

from antiphon.contracts import SagaKey
from antiphon.contracts.errors import PlatformError, ServerUnfit, ServerUnreachable
from antiphon.contracts.subjects import start_subject
from antiphon.contracts.topology import EVENTS, STARTS
from antiphon.deploy.local.server import Server
from antiphon.link import Credentials, Delivery, Link, connection, creds, fast
from antiphon.link.fast import PUBLIC_VARIABLE, FastTransport
from antiphon.link.faults import say
from antiphon.link.guard import Guard
from antiphon.link.transport import PublicTransport
from tests.support.server import Platform, platform, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("transport"), participants=()) as up:
        yield up


@pytest.fixture(autouse=True)
def looked_at_anew(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(PUBLIC_VARIABLE, raising=False)
    fast._is_known_release.cache_clear()
    yield
    fast._is_known_release.cache_clear()


class Sealed(Client):
    """A client whose private parts nobody in Antiphon may touch."""

    def __getattribute__(self, name: str) -> Any:
        _refuse(name)
        return super().__getattribute__(name)

    def __setattr__(self, name: str, value: object) -> None:
        _refuse(name)
        super().__setattr__(name, value)


def _refuse(name: str) -> None:
    caller = sys._getframe(2).f_globals["__name__"]
    if name.startswith("_") and not name.startswith("__") and caller.startswith("antiphon."):
        raise AssertionError(f"{caller} touches {name}")


async def use(link: Link) -> None:
    """Write, read, pull and ask over a link, and close it."""
    subject = start_subject(SagaKey.of("t", f"u{link.nc.client_id}"))
    sequence = await link.store(subject, b"{}")
    assert [each.sequence for each in await link.read_all(EVENTS, [subject])] == [sequence]
    assert await link.get_last(EVENTS, f"{subject}-nothing") is None
    taken: list[str] = []

    def take(delivery: Delivery) -> None:
        taken.append(delivery.subject)
        delivery.ack()

    pull = await link.pull(EVENTS, STARTS, 10, take)
    assert await pull.is_accepted()
    await until(lambda: subject in taken)
    await pull.drain()
    await link.close()


async def test_the_known_private_parts_are_used(server: Platform) -> None:
    link = await server.connect("coordinator")
    assert isinstance(link._transport, FastTransport)
    await link.close()


async def test_switched_off_the_link_touches_nothing_private(server: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PUBLIC_VARIABLE, "1")
    monkeypatch.setattr(connection, "Client", Sealed)
    await server.set_up()
    link = await server.connect("coordinator")
    assert isinstance(link._transport, PublicTransport)
    await use(link)


async def test_an_unknown_release_is_used_by_its_public_parts(
    server: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(fast.CALLED_BY_THE_PARSER, "_process_ping", ["self", "one", "more"])
    link = await server.connect("coordinator")
    assert isinstance(link._transport, PublicTransport)
    await link.close()


async def unlike(self: Client, sid: int, message: object) -> None: ...


@pytest.mark.parametrize("part", fast.CALLED_BY_THE_PARSER)
def test_a_method_with_other_parameters_is_not_known(monkeypatch: pytest.MonkeyPatch, part: str) -> None:
    monkeypatch.setattr(Client, part, unlike)
    assert not fast._is_known_release()


@pytest.mark.parametrize("part", ["_ps", "_transport", "_server_info"])
async def test_a_client_without_a_part_is_not_known(
    server: Platform, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setenv(PUBLIC_VARIABLE, "1")
    link = await server.connect("coordinator")
    client: Any = link.nc
    assert fast._is_known_client(client)
    part_before = getattr(client, part)
    setattr(client, part, None)
    assert not fast._is_known_client(client)
    setattr(client, part, part_before)
    await link.close()


@pytest.mark.parametrize("public", ["", "1"])
async def test_a_server_without_jetstream_is_unfit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, public: str
) -> None:
    monkeypatch.setenv(PUBLIC_VARIABLE, public)
    server = Server(tmp_path, jetstream=False)
    server.start()
    try:
        with pytest.raises(ServerUnfit, match="without JetStream"):
            await Link.connect(server.url, name="coordinator", credentials=Credentials())
    finally:
        server.stop()


async def test_on_the_public_api_a_subscription_stands_with_the_server_when_subscribe_returns() -> None:
    """nats-py only queues it, and whoever asks at once would find nobody."""
    calls: list[str] = []

    class Recorder:
        async def subscribe(self, subject: str, queue: str, cb: object) -> str:
            calls.append(f"subscribe {subject}")
            return subject

        async def flush(self, seconds: int) -> None:
            calls.append("flush")

    nc: Any = Recorder()
    await PublicTransport(nc, Guard(say)).subscribe("antiphon.status.*.*", lambda *message: None, "")
    assert calls == ["subscribe antiphon.status.*.*", "flush"]


class CancelsTheAsker:
    """A connection whose answer comes in the same turn of the loop as a cancel of the task that waits for it."""

    def __init__(self) -> None:
        self.asker: asyncio.Task[None] | None = None

    async def flush(self, seconds: int) -> None:
        """Wait as nats-py does."""
        loop = asyncio.get_running_loop()
        answer = loop.create_future()
        loop.call_soon(self._answer, answer)
        await asyncio.wait_for(answer, seconds)

    async def subscribe(self, subject: str, **options: object) -> Subscribed:
        return Subscribed()

    def _answer(self, answer: asyncio.Future[None]) -> None:
        assert self.asker is not None
        answer.set_result(None)
        self.asker.cancel()


class Subscribed:
    _id = 1


@pytest.mark.parametrize("transport", [PublicTransport, FastTransport])
@pytest.mark.parametrize("call", ["flushed", "subscribe"])
async def test_a_cancel_that_comes_together_with_the_answer_of_the_server_is_heeded(
    transport: type[PublicTransport | FastTransport], call: str
) -> None:
    """Before Python 3.12 `asyncio.wait_for` loses it, and a process that was told to end would go on."""
    nc: Any = CancelsTheAsker()
    went_on = False

    async def ask() -> None:
        nonlocal went_on
        if call == "flushed":
            await transport(nc, Guard(say)).flushed()
        else:
            await transport(nc, Guard(say)).subscribe("antiphon.status.*.*", lambda *message: None, "")
        went_on = True

    nc.asker = asyncio.create_task(ask())
    await asyncio.wait([nc.asker])
    assert nc.asker.cancelled()
    assert not went_on


async def test_a_task_that_was_cancelled_before_may_still_flush(server: Platform) -> None:
    """What closes a link runs in a task that is being cancelled."""
    link = await server.connect("coordinator")
    flushed: list[bool] = []

    async def end() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            flushed.append(await link._transport.flushed())
            await link.close()

    task = asyncio.create_task(end())
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert flushed == [True]
    assert link.nc.is_closed


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nats://",
        "nats://user:secret@host:port",
        "nats://user:sec/secret@host",
        "nats://user:at@secret@host:port",
        "http://127.0.0.1:1",
        "nats://127.0.0.1:99999",
        "nats://[::1",
    ],
)
async def test_what_is_no_address_of_a_server_is_a_sentence_without_passwords(url: str) -> None:
    with pytest.raises(ServerUnreachable, match="is no address of a NATS server") as refused:
        await Link.connect(url, name="coordinator", credentials=Credentials())
    assert "secret" not in str(refused.value)


async def test_a_user_is_known_by_an_nkey(tmp_path: Path) -> None:
    seed = nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER)
    (tmp_path / "seed").write_bytes(seed)
    key: Any = nkeys.from_seed(bytearray(seed)).public_key
    with Server(tmp_path / "nats", accounts=f"authorization {{ users: [{{ nkey: {key.decode()} }}] }}") as server:
        credentials = Credentials(user="stock", nkey_file=str(tmp_path / "seed"))
        link = await Link.connect(server.url, name="stock", credentials=credentials)
        await link.close()


async def test_without_the_extra_an_nkey_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "seed").touch()
    with pytest.raises(PlatformError, match=r"NATS_CREDS: .* cannot be read"):
        await Link.connect("nats://127.0.0.1:1", name="stock", credentials=Credentials(creds_file=str(tmp_path / "no")))
    monkeypatch.setattr(creds, "find_spec", lambda name: None)
    credentials = Credentials(nkey_file=str(tmp_path / "seed"))
    with pytest.raises(PlatformError, match=r"pip install 'antiphon\[nkeys\]'"):
        await Link.connect("nats://127.0.0.1:1", name="stock", credentials=credentials)
