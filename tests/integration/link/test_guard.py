"""Whatever a callback raises ends at the guard, and whatever it was called for comes to an end."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import structlog

from antiphon.contracts import SagaKey
from antiphon.contracts.errors import Ambiguous
from antiphon.contracts.stored import Outcome
from antiphon.contracts.subjects import start_subject
from antiphon.contracts.topology import EVENTS, SAGA, STARTS
from antiphon.link import Delivery, Link
from antiphon.link.fast import PUBLIC_VARIABLE, FastTransport
from antiphon.link.faults import class_of, say
from antiphon.link.guard import Guard
from tests.support.poison import RAISED, Panic, explode
from tests.support.server import Platform, platform, until

Call = Callable[[], None]


class InHand:
    def __init__(self) -> None:
        self.errors: list[BaseException] = []

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)


@pytest.mark.parametrize("name", RAISED)
def test_what_is_raised_goes_to_what_is_in_hand_and_no_further(name: str) -> None:
    guard, hand = Guard(say), InHand()
    guard.call(hand, explode, name)
    assert [type(error) for error in hand.errors] == [RAISED[name]]
    assert guard.current is None


@pytest.mark.parametrize("name", RAISED)
def test_where_nothing_is_in_hand_it_is_logged_once_with_its_class(name: str) -> None:
    with structlog.testing.capture_logs() as lines:
        Guard(say).call(None, explode, name)
    assert [(line["event"], line["log_level"]) for line in lines] == [("callback.faulty", "error")]
    assert lines[0]["error"] == class_of(RAISED[name]())


def test_a_log_that_raises_as_well_stops_nobody() -> None:
    with structlog.testing.capture_logs() as lines:
        say("x", RAISED["Mute"](), "evt.x")
    assert lines


def test_what_raises_within_what_another_has_in_hand_is_told_to_the_inner_one() -> None:
    guard, outer, inner = Guard(say), InHand(), InHand()

    def both() -> None:
        guard.call(inner, explode, "Panic")
        explode("SystemExit")

    guard.call(outer, both)
    assert [type(error) for error in inner.errors] == [Panic]
    assert [type(error) for error in outer.errors] == [SystemExit]


def test_one_whose_own_end_raises_is_logged() -> None:
    class Worse:
        def failed(self, error: BaseException) -> None:
            raise Panic("worse")

    with structlog.testing.capture_logs() as lines:
        Guard(say).call(Worse(), explode, "SystemExit")
    assert [line["error"] for line in lines] == [class_of(Panic())]


# --- a real connection ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with platform(tmp_path_factory.mktemp("guard"), participants=()) as up:
        yield up


@pytest.fixture(params=["frames", "public"])
async def link(request: pytest.FixtureRequest, server: Platform, monkeypatch: pytest.MonkeyPatch) -> Link:
    if request.param == "public":
        monkeypatch.setenv(PUBLIC_VARIABLE, "1")
    await server.set_up()
    return await server.connect("coordinator")


@contextmanager
def unbroken(link: Link) -> Iterator[None]:
    """The connection is the same afterwards."""
    before = link.nc.client_id
    yield
    assert link.nc.client_id == before
    assert link.nc.stats["reconnects"] == 0
    assert not link.failure.done()


async def fill(link: Link, run: str, names: list[str]) -> list[str]:
    """Store one event for each name, all of them before anybody pulls."""
    filled = [start_subject(SagaKey.of("t", f"{run}-{n}")) for n, _ in enumerate(names)]
    for subject, name in zip(filled, names, strict=True):
        await link.store(subject, name.encode())
    return filled


async def test_a_handler_that_raises_ends_no_connection_and_skips_no_other_message(
    link: Link, server: Platform
) -> None:
    names = [name for each in RAISED for name in (each, *["well"] * 5)]
    run = f"h{link.nc.client_id}"
    subjects = await fill(link, run, names)
    seen: dict[str, list[int]] = {}

    def handle(delivery: Delivery) -> None:
        if delivery.subject not in subjects:
            delivery.ack()
            return
        seen.setdefault(delivery.subject, []).append(delivery.deliveries)
        if delivery.deliveries == 1:
            explode(delivery.data.decode())
        delivery.ack()

    with unbroken(link):
        pull = await link.pull(EVENTS, STARTS, 100, handle)
        await until(lambda: len(seen) == len(names) and pull.held == 0)
        await until(
            lambda: all(seen[s] == ([1, 2] if n in RAISED else [1]) for s, n in zip(subjects, names, strict=True))
        )
    await link.close()


@pytest.mark.parametrize("name", RAISED)
async def test_every_callback_that_raises_leaves_the_connection_and_the_others_alone(
    link: Link, server: Platform, name: str
) -> None:
    calls: list[str] = []

    def bad(what: str) -> Callable[[object], None]:
        def raises(result: object) -> None:
            calls.append(what)
            explode(name)

        return raises

    loop = asyncio.get_running_loop()
    subject = f"evt.1.t.{name}-{link.nc.client_id}.client.start"
    with unbroken(link):
        link.publish(subject, b"{}", "", bad("outcome"))
        link.read(EVENTS, ["evt.nothing"], bad("read"))
        link.page(EVENTS, "evt.nothing", 1, 10, bad("page"))
        subscription = await link.subscribe(f"heard.{name}", lambda *given: bad("subscription")(given))
        link.send(f"heard.{name}")
        link.on_reconnect.append(lambda: bad("reconnect")(None))
        await link.handle_reconnect()
        link.on_refused["x"] = bad("refused")
        await link.handle_error(RuntimeError('Permissions Violation for Publish to "x"'))
        loop.call_later(0, link.guard.call, None, lambda: bad("timer")(None))
        await until(lambda: len(calls) == 7)
        assert await link.store(f"{subject}-2", b"{}") > 0
    await subscription.unsubscribe()
    await link.close()


async def test_an_answer_that_the_server_refuses_ends_no_connection(link: Link) -> None:
    """Whoever asks chooses where the answer goes, and when it is too late for one."""
    heard: list[bytes] = []
    inbox = link.new_inbox()
    await link.subscribe(inbox, lambda subject, reply, data, headers: heard.append(data))
    await link.handle_error(RuntimeError('Permissions Violation for Publish to "_R_.x7.3"'))
    await link.handle_error(RuntimeError('Permissions Violation for Publish to "_INBOX_shop.7.3"'))
    assert not link.failure.done()
    link.answer("saga.1.order.o1.c.end", b"forged")
    link.answer(inbox, b"told")
    await until(lambda: heard == [b"told"])
    assert await link.get_last(SAGA, "saga.1.order.o1.c.end") is None
    await link.handle_error(RuntimeError(f'Permissions Violation for Subscription to "{inbox.lower()}"'))
    assert link.failure.done()
    await link.close()


async def test_those_that_wait_for_answers_are_all_told_that_none_comes_though_some_raise(link: Link) -> None:
    told: list[Outcome] = []

    def raises(outcome: Outcome) -> None:
        told.append(outcome)
        explode(list(RAISED)[len(told) % len(RAISED)])

    for number in range(10):
        link.publish(f"nobody.{number}", b"", "", raises)
    link._fail_all("the test says so")
    assert [type(each) for each in told] == [Ambiguous] * 10
    await link.close()


async def test_a_subject_that_is_no_utf_8_reaches_its_handler(link: Link) -> None:
    transport = link._transport
    if not isinstance(transport, FastTransport):
        await link.close()
        pytest.skip("nats-py's own parser decides there")
    heard: list[str] = []
    with unbroken(link):
        await link.subscribe("odd.>", lambda subject, reply, data, headers: heard.append(subject))
        transport.send_frame(b"PUB odd.\xff\xfe 0\r\n\r\n")
        link.flush()
        link.send("odd.well")
        await until(lambda: len(heard) == 2)
    assert heard[1] == "odd.well"
    await link.close()
