"""Hostile texts stored in every field of every message, and every command that shows them.

Which fields there are is found by walking the types of the contracts. A message that a strict reader refuses is shown,
too: as unreadable, with the reason.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import pytest
import structlog

from antiphon.contracts import headers, messages, payloads, subjects
from antiphon.contracts.envelope import Envelope
from antiphon.contracts.errors import AntiphonError
from antiphon.contracts.identity import SagaKey
from antiphon.contracts.messages import Refusal
from antiphon.contracts.payloads import END_TYPE, RECORD_TYPE, End, More, Parked, Record
from antiphon.contracts.registration import Registration
from antiphon.deploy.cli import flows, listing, operating, sagas, trace
from antiphon.deploy.cli.main import fail
from antiphon.deploy.readmodel import projector
from antiphon.link import Link
from antiphon.link.fast import FastTransport
from antiphon.tracing.telemetry.logs import configure
from tests.support.hostile import FORGED, HOSTILE, TOKEN, assert_harmless, infected, structs_in, whole
from tests.support.logs import plain_logs
from tests.support.server import Platform, platform

PAYLOADS: Final = [(each, *found) for each in structs_in(payloads, messages) for found in infected(each)]
"""What may be the payload of a message: its shape, the place of the hostile text, and the payload."""
ENVELOPES: Final = list(infected(Envelope))
RECORDS: Final = [*infected(Record), ("all", whole(Record, HOSTILE))]
ENDS: Final = [*infected(End), ("all", whole(End, HOSTILE))]
IN_A_HEADER: Final = "".join(each for each in HOSTILE if each.isascii() and each not in "\r\n\0")
FIRST_LETTERS: Final = ("N", "t", "K")
PRINTABLE: Final = "".join(each for each in HOSTILE if each.isascii() and each.isprintable())[-150:]
"""What of it a registration may have."""
HEADERS: Final = "".join(
    f"{name}: {IN_A_HEADER}\r\n"
    for name in sorted({*re.findall(r"\b([A-Z][A-Za-z-]+|traceparent): ", inspect.getsource(headers)), "Nats-Subject"})
    if name[0] in FIRST_LETTERS and not name.startswith(("Nats-Expected", "Nats-Schedule"))
)
"""Every header that a client may write and the server takes, on a stream without schedules."""
VERBS: Final = ("cancel", "retry", "edit", "resolve", "pause", "resume", TOKEN.replace("/", ""))
ANSWERS: Final = ("done", "refused", "exhausted", "superseded", "settled", "closed")
AT: Final = "2026-11-27T09:00:00Z"


class Writer:
    """Stores whatever it is given, as anybody may who has the right to the subject."""

    def __init__(self, link: Link) -> None:
        self.link = link
        assert isinstance(link._transport, FastTransport)
        self._transport = link._transport

    def send(self, subject: str, value: Any, more_headers: str = "") -> None:
        data = value if isinstance(value, bytes) else msgspec.json.encode(value)
        head = f"NATS/1.0\r\n{more_headers}\r\n".encode() if more_headers else b""
        size = f"{len(head)} {len(head) + len(data)}" if head else f"{len(data)}"
        self._transport.send_frame(f"{'H' if head else ''}PUB {subject} {size}\r\n".encode() + head + data + b"\r\n")

    def say(self, subject: str, data: Any, type_: str, source: str = "", **more: Any) -> None:
        said = {
            "specversion": "1.0",
            "id": subject,
            "source": source or subject.split(".")[4],
            "type": type_,
            "time": AT,
        }
        self.send(subject, {**said, "data": data, **more})


def facts(writer: Writer, key: SagaKey, payload: Any, number: int) -> None:
    """One payload wherever participants, clients and operators write one."""
    writer.say(subjects.start_subject(key), payload, HOSTILE if number % 2 else "order.placed.v1")
    writer.say(subjects.cancel_subject(key), payload, payloads.CANCEL_TYPE)
    writer.say(subjects.signal_subject(key, "x"), payload, HOSTILE)
    for verb in VERBS:
        writer.say(subjects.verb_subject(key, "ada", verb, "1"), payload, payloads.verb_type(verb))
    for attempt, kind in enumerate(ANSWERS, 1):
        subject = subjects.event_subject(key.path, "inventory", f"inventory-reserve-{kind}", "reserve", attempt)
        writer.say(subject, payload, f"inventory.reserve.{kind}.v1", command="1")
    writer.say(subjects.event_subject(key.path, "inventory", "x", "on-x", 1), payload, HOSTILE, reacts="1")


def journal(writer: Writer, key: SagaKey, record: Any, end: Any | None, extra: dict[str, Any]) -> None:
    """A journal as a coordinator writes one, with what others have said in it."""
    start, first = subjects.start_subject(key), subjects.command_subject(key, "inventory", "reserve", "do", 1)
    writer.say(start, {"item_id": HOSTILE, "quantity": 1}, "order.placed.v1")
    common: dict[str, Any] = {"cause": "t1", "definition": f"order.v1.{'a' * 12}"}
    writer.say(first, {"item_id": HOSTILE}, "inventory.reserve.v1", "coordinator", **{**common, **extra})
    answer = subjects.event_subject(key.path, "inventory", "inventory-reserve-refused", "reserve", 1)
    writer.say(answer, whole(Refusal, HOSTILE), "inventory.reserve.refused.v1", **{"command": "1", **extra})
    writer.say(subjects.record_subject(key, "1"), record, RECORD_TYPE, "coordinator", **{"cause": "t2", **extra})
    if end is not None:
        writer.say(subjects.end_subject(key), end, END_TYPE, "coordinator", cause="t3")


PLAIN_RECORD: Final = {"step": "reserve", "parked": HOSTILE}
PLAIN_END: Final = {"outcome": "compensated", "reason": HOSTILE}


Store = Callable[[Writer, SagaKey], None]


def told_sagas() -> Iterator[tuple[SagaKey, Store]]:
    """Sagas of which each has the hostile text somewhere else, and what stores one."""
    for number, (_, _, payload) in enumerate(PAYLOADS):
        yield SagaKey.of("told", f"s{number}"), partial(facts, payload=payload, number=number)
    for number, (_, record) in enumerate(RECORDS):
        end = PLAIN_END if number % 2 else None
        yield SagaKey.of("recorded", f"s{number}"), partial(journal, record=record, end=end, extra={})
    for number, (_, end) in enumerate(ENDS):
        yield SagaKey.of("ended", f"s{number}"), partial(journal, record=PLAIN_RECORD, end=end, extra={})
    for number, (field, value) in enumerate(ENVELOPES):
        yield SagaKey.of("enveloped", f"s{number}"), partial(enveloped, field=field.partition(".")[0], value=value)


def enveloped(writer: Writer, key: SagaKey, field: str, value: Any) -> None:
    """A saga whose messages have the text in a field of the envelope."""
    is_ours = field in ("id", "data", "source", "type", "time", "specversion")
    journal(writer, key, PLAIN_RECORD, None, {} if is_ours else {field: value[field]})
    writer.send(subjects.cancel_subject(key), value, HEADERS)


def stored_beside(writer: Writer) -> None:
    """PARKED, registrations, and subjects that are no subjects of the protocol."""
    for number, (_, value) in enumerate(infected(Parked)):
        for kind in ("forged", "undecodable", "orphan", "fault"):
            writer.send(f"parked.{kind}.inventory.s{number}", value)
        writer.send(subjects.parked_saga_subject(SagaKey.of("told", f"s{number}")), value)
    for _, value in infected(More):
        writer.send("parked.forged-more.inventory.billing", value)
    writer.send("$KV.ANTIPHON_PARTICIPANTS.a.a", whole(Registration, PRINTABLE))
    for number, (_, value) in enumerate(infected(Registration)):
        writer.send(f"$KV.ANTIPHON_PARTICIPANTS.inventory.i{number}", {**value, "instance": f"i{number}"})
        writer.send(f"$KV.ANTIPHON_PARTICIPANTS.coordinator.i{number}", {**value, "name": "coordinator"})
    for subject in ("parked.forged.inventory", f"parked.{TOKEN}", "$KV.ANTIPHON_PARTICIPANTS.inventory", "evt.1.told"):
        writer.send(f"{subject}.{TOKEN}", HOSTILE.encode())
    writer.send(f"evt.1.told.{TOKEN}.client.start", {"specversion": "1.0"})


class Shown:
    """Runs what a command runs, and looks at all that is written."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self.texts = list[str]()

    async def __call__(self, command: Coroutine[Any, Any, Any]) -> str:
        with self._told():
            await command
        return self.look()

    def at_once(self, command: Callable[[], Any]) -> str:
        with self._told():
            command()
        return self.look()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What the command line does with what a command raises."""
        with suppress(SystemExit):
            try:
                yield
            except AntiphonError as error:
                fail(str(error))

    def look(self) -> str:
        said = self._capsys.readouterr()
        for each in (said.out, said.err):
            assert_harmless(each)
        self.texts.append(said.out)
        return str(said.out)


@pytest.fixture(autouse=True)
def as_a_command(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Have this process log as the command line does, and draw in lines that are wide enough."""
    monkeypatch.setenv("COLUMNS", "400")
    configure(readable=True)
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr), cache_logger_on_first_use=False)
    yield
    plain_logs()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A server that holds all of it, and on which nobody runs."""
    with platform(tmp_path_factory.mktemp("up"), participants=("inventory",)) as running:
        asyncio.run(_fill(running))
        yield running


async def _fill(running: Platform) -> None:
    await running.set_up()
    link = await running.connect("administrator")
    writer = Writer(link)
    for key, store in told_sagas():
        store(writer, key)
    stored_beside(writer)
    link.flush()
    await link.flushed()
    await link.close()


def test_the_flow_of_what_runs_is_drawn_of_hostile_registrations_and_hands_none_to_the_terminal(
    up: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = Shown(capsys)
    for form in ("mermaid", "dot", "svg", "json"):
        shown.at_once(lambda form=form: flows.draw_flow([], up.servers, form, "", None))  # type: ignore[misc]
    for as_json in (False, True):
        found = shown.at_once(lambda as_json=as_json: flows.check_flow([], up.servers, as_json))  # type: ignore[misc]
        assert "x1b" in found or "u001b" in found
        shown.at_once(lambda as_json=as_json: flows.tell_who([], up.servers, HOSTILE, as_json))  # type: ignore[misc]


@pytest.mark.parametrize("arguments", [("flow", "check"), ("parked", "--json"), ("parked",), ("list",)], ids=" ".join)
def test_the_command_line_as_a_process_hands_none_to_the_terminal(up: Platform, arguments: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "antiphon.deploy", *arguments, "--server", up.servers]
    text = {**os.environ, "ANTIPHON_LOG": "text", "COLUMNS": "400"}
    ran = subprocess.run(command, env=text, capture_output=True, timeout=120, check=False)
    for said in (ran.stdout, ran.stderr):
        assert_harmless(said.decode())
    assert FORGED in ran.stdout.decode() or "x1b" in ran.stdout.decode()
    if "--json" in arguments:
        assert json.loads(ran.stdout)


async def test_every_command_shows_hostile_texts_and_hands_none_to_the_terminal(
    up: Platform, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    link = await up.connect("operator")
    with monkeypatch.context() as patched:  # hundreds of commands, and one connection
        patched.setattr(Link, "connect", staticmethod(partial(_the_same, link)))
        patched.setattr(Link, "close", _not_yet)
        await _show_all(Shown(capsys), up.servers, tmp_path)
    await link.close()


async def _the_same(link: Link, *_: Any, **__: Any) -> Link:
    return link


async def _not_yet(_: Link) -> None:
    """The link is closed by whoever opened it."""


async def _show_all(shown: Shown, server: str, folder: Path) -> None:
    told = [key for key, _ in told_sagas()]
    for key in told:
        for as_json in (False, True):
            await shown(sagas.show_saga(server, str(key), as_json))
        for form in ("picture", "jaeger", "otlp") if key.type != "told" or key.id == "s0" else ():
            await shown(trace.show_trace(server, str(key), form, None, True, "", False))
    assert sum(FORGED in text for text in shown.texts) > len(told)
    await shown(trace.compare_traces(server, str(told[-1]), str(told[-2]), False))
    for as_json in (False, True):
        assert FORGED in await shown(sagas.list_sagas(server, "*", 10_000, as_json))
        waiting = await shown(operating.list_parked(server, 1, 10_000, as_json))
        assert FORGED in waiting
    for each in json.loads(waiting):
        if each.get("sequence"):
            for as_json in (False, True):
                await shown(operating.show_parked(server, each["sequence"], as_json))
    database = f"sqlite:///{folder / 'sagas.db'}"
    await shown(projector.serve(server, database, rebuild=False, once=True, name="readmodel"))
    for as_json in (False, True):
        listed = await shown(listing.list_from_model(database, "*", None, False, 0, [], "started", 10_000, as_json))
        assert FORGED in listed


def test_the_walk_comes_to_every_field() -> None:
    walked = {(shape.__name__, place.partition(".")[0]) for shape, place, _ in PAYLOADS}
    fields = {(shape.__name__, field) for shape in structs_in(payloads, messages) for field in shape.__struct_fields__}
    assert fields <= walked
    assert {place.partition(".")[0] for place, _ in ENVELOPES} == set(Envelope.__struct_fields__)
    assert {place.partition(".")[0] for place, _ in infected(Registration)} == set(Registration.__struct_fields__)
