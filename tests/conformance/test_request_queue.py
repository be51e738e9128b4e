"""Requests of clients: few at once, a bounded number waits, each source has its turn, and what is shed is told."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from antiphon.contracts.headers import asking_account
from antiphon.contracts.subjects import inbox_owner
from antiphon.coordinator.runtime.memory import MemoryPlatform
from antiphon.coordinator.runtime.request_queue import (
    AT_ONCE,
    BURST,
    BUSY_PER_SECOND,
    OTHERS,
    PER_SECOND,
    SAY_SECONDS,
    SOURCES_MAX,
    USEFUL_SECONDS,
    WAITING_MAX,
    RequestQueue,
    source_of,
)
from antiphon.tracing.telemetry.counts import Counts


class Desk:
    """A queue in virtual time, and what became of the requests of each source."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.platform, self.counts, self.seconds = MemoryPlatform(), Counts(), seconds
        self.begun: list[str] = []
        self.refused: list[str] = []
        self.in_hand = self.most_in_hand = 0

        def later(delay_seconds: float, call: object) -> None:
            self.platform.later_ns(round(delay_seconds * 1e9), call)  # type: ignore[arg-type]

        self.queue = RequestQueue(self.counts, lambda: self.platform.now_ns / 1e9, later)

    def ask(self, source: str, times: int = 1) -> None:
        for _ in range(times):
            self.queue.take(source, Asked(self, source))

    def shed(self, source: str) -> int:
        return self.counts.totals["requests_shed", (source,)]


class Asked:
    def __init__(self, desk: Desk, source: str) -> None:
        self._desk, self._source = desk, source

    def begin(self) -> None:
        desk = self._desk
        desk.begun.append(self._source)
        desk.in_hand += 1
        desk.most_in_hand = max(desk.most_in_hand, desk.in_hand)
        if desk.seconds:
            desk.platform.later_ns(round(desk.seconds * 1e9), self._end)
        else:
            self._end()

    def _end(self) -> None:
        self._desk.in_hand -= 1
        self._desk.queue.done()

    def refuse(self, sentence: str) -> None:
        self._desk.refused.append(sentence)


def test_a_request_alone_is_answered_at_once() -> None:
    desk = Desk()
    desk.ask("shop")
    assert desk.begun == ["shop"]


def test_only_a_few_are_in_hand_at_once() -> None:
    desk = Desk(seconds=0.01)
    desk.ask("shop", 50)
    desk.platform.run(10)
    assert (len(desk.begun), desk.most_in_hand) == (50, AT_ONCE)


def test_a_flood_is_answered_at_a_pace_and_takes_no_more_room_than_there_is() -> None:
    desk = Desk()
    desk.ask("shop", 300_000)
    assert len(desk.begun) == BURST
    assert desk.queue.waiting() == {"shop": WAITING_MAX // 2}
    assert desk.shed("shop") == 300_000 - BURST - WAITING_MAX // 2
    desk.platform.run(1)
    assert len(desk.begun) == pytest.approx(BURST + PER_SECOND, abs=2)
    desk.platform.run(10)
    assert desk.queue.waiting() == {}
    assert len(desk.begun) == BURST + WAITING_MAX // 2


def test_whoever_floods_keeps_nobody_else_waiting() -> None:
    desk = Desk()
    desk.ask("flood", 10_000)
    desk.ask("shop", 10)
    begun = len(desk.begun)
    desk.platform.run(0.2)
    assert desk.begun[begun:].count("shop") == 10
    assert desk.shed("shop") == 0


def test_a_shed_request_is_told_so_and_not_all_of_them() -> None:
    desk = Desk()
    desk.ask("shop", 10_000)
    assert len(desk.refused) == BUSY_PER_SECOND
    assert set(desk.refused) == {"too many requests of shop wait already; ask again in a second"}


def test_what_nobody_waits_for_any_more_is_not_looked_up() -> None:
    desk = Desk(seconds=USEFUL_SECONDS + 1)
    desk.ask("shop", AT_ONCE)
    desk.ask("late", 5)
    desk.platform.run(20)
    assert desk.begun == ["shop"] * AT_ONCE


def test_requests_that_end_at_once_make_no_deep_stack() -> None:
    desk = Desk(seconds=0.001)
    desk.ask("shop", AT_ONCE)
    desk.seconds = 0.0
    desk.ask("shop", WAITING_MAX // 2)
    desk.platform.run(10)
    assert len(desk.begun) == AT_ONCE + WAITING_MAX // 2


def test_the_log_names_the_source_now_and_then() -> None:
    desk = Desk()
    with capture_logs() as lines:
        desk.ask("shop", 2_000)
        desk.platform.run(SAY_SECONDS + 1)
        desk.ask("shop", 2_000)
    assert [(line["event"], line["source"]) for line in lines] == [("requests.shed", "shop")] * 2
    assert lines[1]["count"] > 1


def test_sources_without_end_are_told_together() -> None:
    desk = Desk()
    desk.ask("first", 5_000)
    for number in range(3_000):
        desk.ask(f"s{number}", 3)
    names = {labels[0] for what, labels in desk.counts.totals if what == "requests_shed"}
    assert OTHERS in names
    assert len(names) <= SOURCES_MAX + 1


@pytest.mark.parametrize(
    ("reply", "headers", "source"),
    [
        ("_INBOX_shop.AbC.1", None, "shop"),
        ("_INBOX.AbC.1", None, "AbC"),
        ("_INBOX_\x1b[2J.AbC", None, "unknown"),
        ("", None, "unknown"),
        ("_R_.x.y", b'NATS/1.0\r\nNats-Request-Info: {"acc":"CLIENT-shop","rtt":12}\r\n\r\n', "CLIENT-shop"),
        ("_INBOX_shop.A", b'NATS/1.0\r\nNats-Request-Info: {"acc":"\\u001b[2J"}\r\n\r\n', "shop"),
        ("_INBOX_shop.A", b"NATS/1.0\r\nNats-Request-Info: {", "shop"),
        ("_INBOX_shop.A", b"NATS/1.0\r\nNats-Request-Info: 7\r\n\r\n", "shop"),
        ("_INBOX_shop.A", b"NATS/1.0\r\nOther: 1\r\n\r\n", "shop"),
    ],
)
def test_who_asks_is_the_account_or_else_the_owner_of_the_inbox(reply: str, headers: bytes | None, source: str) -> None:
    assert source_of(reply, headers) == source
    assert (asking_account(headers or b"") or inbox_owner(reply)) == source
