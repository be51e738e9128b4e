"""Whether a saga is sampled is decided with its first command, and repeated by whoever goes on with it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from msgspec.structs import replace

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.envelope import decode, encode
from antiphon.contracts.stored import StoredMessage
from antiphon.contracts.topology import SAGA
from antiphon.coordinator.decision.author import Author
from antiphon.coordinator.runtime.coordinator import Coordinator
from antiphon.tracing.export.exporter import _newly_final, is_chosen
from antiphon.tracing.projection.project import Projection, exportable, project
from antiphon.tracing.projection.sampling import decision_in
from tests.conformance.fleet import Fleet
from tests.integration.tracing.voyage import Voyage
from tests.unit.decide.life import Life
from tests.unit.packaging.project import ROOT

MODULES = (
    *("coordinator.runtime.coordinator", "participants.worker"),
    *("tracing.telemetry.handler_spans", "tracing.export.exporter", "tracing.projection.sampling"),
)


def flags(journal: list[StoredMessage]) -> list[str]:
    """The flag of each command in a journal; empty where it has no traceparent."""
    commands = [each for each in journal if subjects.parse_entry(each.subject).command is not None]
    return [decode(each.data, each.subject).traceparent[-2:] for each in commands]


def with_flag(message: StoredMessage, flag: str) -> StoredMessage:
    """A command as another environment would have had it written; without a `traceparent` if the flag is empty."""
    envelope = decode(message.data, message.subject)
    traceparent = envelope.traceparent[:-2] + flag if flag else ""
    return replace(message, data=encode(replace(envelope, traceparent=traceparent)))


@pytest.mark.parametrize(("first", "other", "flag"), [(0.0, 1.0, "00"), (1.0, 0.0, "01")])
def test_two_coordinators_with_different_ratios_write_one_journal(first: float, other: float, flag: str) -> None:
    lives = Life(), Life()
    for life, later in zip(lives, (first, other), strict=True):
        life.ratio = first
        life.start()
        for step in ("book_room", "book_seat"):
            life.ratio = later
            life.history = life.refolded()  # as one that reads the journal
            life.answer(step)
            life.ratio = first
        life.answer("charge_card", "refused")
        life.ratio = later
        life.undone("book_seat")
        life.undone("book_room")
    one, two = (life.journal for life in lives)
    assert lives[0].state == "compensated"
    assert [each.data for each in one] == [each.data for each in two]
    assert set(flags(one)) == {flag}


@pytest.mark.parametrize("flag", ["00", "01"])
def test_a_plan_of_several_commands_says_the_same_in_each(flag: str) -> None:
    life = Life()
    life.ratio = float(flag)
    life.start()
    life.cancel()
    assert set(flags(life.journal)) == {flag}


@pytest.mark.parametrize(("written", "flag"), [("01", "01"), ("00", "00"), ("", "00")])
def test_a_journal_of_an_earlier_release_folds_and_goes_on_as_it_began(written: str, flag: str) -> None:
    """One without `traceparent` decides with the next command."""
    life = Life()
    life.start()
    before = life.history
    life.journal = [with_flag(each, written) for each in life.journal]
    life.history = life.refolded()
    assert replace(life.history, sampled=True) == before
    life.ratio = 0.0
    life.answer("book_room")
    life.history = life.refolded()
    life.ratio = 1.0
    life.answer("book_seat")
    assert flags(life.journal) == [written, flag, flag]


def test_where_two_environments_wrote_one_journal_the_first_command_holds() -> None:
    """The former release wrote such journals."""
    life = Life()
    life.start()
    life.answer("book_room")
    life.journal[1] = with_flag(life.journal[1], "00")
    life.history = life.refolded()
    life.ratio = 0.0
    life.answer("book_seat")
    assert flags(life.journal) == ["01", "00", "01"]


@pytest.mark.parametrize("first", [0.0, 1.0])
def test_coordinators_take_turns_on_one_saga_in_memory(first: float) -> None:
    fleet = Fleet(coordinators=2, play=lambda command: "done" if command.step != "charge_card" else "refused")
    for coordinator, ratio in zip(fleet.coordinators, (first, 1.0 - first), strict=True):
        coordinator.journals.sampling_ratio = ratio
    handled = list[Coordinator]()
    for coordinator in fleet.coordinators:
        notice(coordinator, handled)
    key = fleet.start()
    fleet.run(100)
    assert fleet.state() == "compensated"
    journal = fleet.platform.read(SAGA, [subjects.journal_filter(key)])
    assert set(handled) == set(fleet.coordinators)
    assert set(flags(journal)) == {"01" if handled[0].journals.sampling_ratio else "00"}


def notice(coordinator: Coordinator, handled: list[Coordinator]) -> None:
    """Write down who decides."""
    author = coordinator.journals.author

    def noticed() -> Author:
        handled.append(coordinator)
        return author()

    coordinator.journals.author = noticed


@pytest.mark.parametrize("module", MODULES)
def test_no_module_reads_the_environment_when_it_is_imported(module: str) -> None:
    environment = {**os.environ, "OTEL_TRACES_SAMPLER": "by_the_weather"}
    command = [sys.executable, "-c", f"import antiphon.{module}"]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ["coordinator", "--app", "antiphon.order.saga:order"],
        ["participant", "antiphon.order.inventory:inventory", "--database", "memory:"],
        ["exporter"],
        ["trace", "reexport", "--since", "1h"],
    ],
)
def test_a_bad_value_is_a_sentence_when_the_process_begins(arguments: list[str]) -> None:
    environment = {
        **os.environ,
        "OTEL_TRACES_SAMPLER": "traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "half",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9",
    }
    command = [sys.executable, "-m", "antiphon.deploy", *arguments]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    sentence = "antiphon: OTEL_TRACES_SAMPLER_ARG=half: give a share of sagas between 0 and 1.\n"
    assert (run.returncode, run.stdout) == (1, "")
    assert run.stderr.endswith(sentence)
    assert "Traceback" not in run.stderr


@pytest.mark.parametrize(
    ("traceparent", "decision"),
    [
        (f"00-{'a' * 32}-{'b' * 16}-01", True),
        (f"00-{'a' * 32}-{'b' * 16}-00", False),
        ("", None),
        ("01", None),
        (f"00-{'a' * 32}-{'b' * 16}-zz", None),
    ],
)
def test_a_traceparent_tells_the_decision_or_nothing(traceparent: str, decision: bool | None) -> None:
    assert decision_in(traceparent) is decision


@pytest.mark.parametrize(("said", "ratio", "chosen"), [(True, 0.0, True), (False, 1.0, False), (None, 1.0, True)])
def test_the_journal_overrules_the_exporters_ratio(said: bool | None, ratio: float, chosen: bool) -> None:
    assert is_chosen(Projection(SagaKey.of("trip", "t1"), sampled=said), ratio) is chosen


def test_the_command_that_says_so_brings_along_what_an_exporter_had_left_out() -> None:
    voyage = Voyage(4, trouble=0.3).live()
    found = [project(key, voyage.entries(key), voyage.events(key)) for key in voyage.sagas()]
    late = [each for each in found if each.sampled_by and each.spans[0].closed_by < each.sampled_by]
    assert late, "no saga whose journal begins with something else than a command"
    for projection in late:
        by = projection.sampled_by
        assert _newly_final(projection, {by}, 0.0) == [span for span in projection.spans if span.closed_by <= by]
        assert _newly_final(projection, {by}, 1.0) == exportable(projection, {by})
        assert _newly_final(projection, {by + 1}, 0.0) == exportable(projection, {by + 1})
