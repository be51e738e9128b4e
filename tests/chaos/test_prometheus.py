"""A real Prometheus over a platform of processes: its alerts say what stands still, and it has what dashboards show."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from antiphon.contracts import subjects
from antiphon.contracts.errors import PlatformError
from antiphon.coordinator import Antiphon, Handle
from antiphon.deploy.local.server import HOST, free_port
from tests.support.processes import Child, supervised
from tests.support.prometheus import DEPLOY, Prometheus, prometheus
from tests.support.receiver import receiver
from tests.support.server import Platform, platform, until
from tests.upgrade.sagas import GATE, PARTICIPANTS, Asked, trip

MODULE: Final = "tests.upgrade.sagas"
STOPPED: Final = "post"
READY: Final = re.compile(r"\b(coordinator|participant|exporter|readmodel)\.ready")
COUNTED: Final = tuple(f"antiphon_sagas_{what}_total" for what in ("started", "ended", "parked"))
"""What one of the coordinators may have counted alone."""
METRIC: Final = re.compile(r"\b(?:antiphon|process)_\w+")

EXPECTED: Final = {
    ("AntiphonSagasWait", "pending"),
    ("AntiphonParticipantGone", "pending"),
    ("AntiphonProcessGone", "pending"),
    ("AntiphonAttemptsExhausted", "firing"),
    ("AntiphonMessagesParked", "firing"),
}
"""One saga is parked, one participant is stopped while commands wait for it, and one message was set aside. Those that
wait for minutes before they fire are pending."""
NOT_AT_ALL: Final = {
    *("AntiphonNoCoordinator", "AntiphonServerDiffers", "AntiphonRoomRunsOut", "AntiphonNoRoom"),
    *("AntiphonEvidenceRunsOut", "AntiphonExporterBehind", "AntiphonExporterLate", "AntiphonReadModelLate"),
    *("AntiphonReadModelFails", "AntiphonParticipantBehind", "AntiphonSagasStandStill", "AntiphonStartsWait"),
}
ONLY_AFTER_TROUBLE: Final = {
    "antiphon_conflicts_total": "two coordinators decided on one saga at the same moment",
    "antiphon_duplicates_suppressed_total": "a message came twice",
    "antiphon_redeliveries_total": "a worker died, or failed and tried again",
    "antiphon_requests_shed_total": "clients ask more than coordinators answer",
    "antiphon_requests_waiting": "the same",
    "antiphon_starts_waiting": "clients start more than coordinators take in",
    "antiphon_export_failures_total": "a backend is away",
    "antiphon_readmodel_failures_total": "the read model's database is away",
}
"""What appears with the first thing that it counts, which this test does not bring about."""


async def test_prometheus_sees_what_stands_still_and_has_what_the_dashboards_show(tmp_path: Path) -> None:
    with platform(tmp_path, participants=tuple(PARTICIPANTS)) as up, receiver() as (_, backend):
        await up.set_up(listeners=[each.listener for each in PARTICIPANTS.values()])
        children = _children(up, tmp_path, backend)
        pages = {role: child.environment["ANTIPHON_HTTP"] for role, child in children.items()}
        with prometheus(tmp_path / "prometheus", [*pages.values()]) as seen, supervised(children):
            await until(lambda: all(map(_is_ready, children.values())), what=f"all at work\n{_logs(children)}")
            await until(seen.answers, what="Prometheus")
            async with Antiphon.connect(up.servers, name="client") as antiphon:
                await _live(up, antiphon, children, seen)
                try:
                    await until(lambda: _states(seen) >= EXPECTED, what="the alerts")
                except AssertionError:
                    raise AssertionError(f"{EXPECTED - _states(seen)} are missing\n{_logs(children)}") from None
            named = ({pages[STOPPED]}, {STOPPED}, {"bank"})  # and not the coordinator that was started again
            await until(lambda: _named_by_alerts(seen) == named, what="alerts that name whom they are about")
            try:
                await until(lambda: not _unfetched(seen), what="a sample of each metric of the dashboards")
            except AssertionError:
                raise AssertionError(f"no samples of {_unfetched(seen)}") from None
            assert not seen.faulty_rules()
            assert not {name for name, _ in _states(seen)} & NOT_AT_ALL, _states(seen)
            for expression in _expressions():
                seen.evaluate(expression)


def test_what_only_trouble_brings_about_is_on_a_dashboard() -> None:
    assert ONLY_AFTER_TROUBLE.keys() <= _metrics()


# --- what happens -----------------------------------------------------------------------------------------------------


def _children(up: Platform, folder: Path, backend: dict[str, str]) -> dict[str, Child]:
    """Two coordinators, a worker of each participant, exporter and read model, each with its pages."""
    bounds = ("--open-max", f"{trip.name}=100", "--retention", f"{trip.name}:completed=1s")
    coordinator = ("coordinator", "--app", f"{MODULE}:{trip.name}", *bounds)
    commands: dict[str, tuple[str, ...]] = {
        "coordinator-1": coordinator,
        "coordinator-2": coordinator,
        "exporter": ("exporter",),
        "readmodel": ("readmodel", "--database", f"sqlite:///{folder}/sagas.db"),
    }
    for name in PARTICIPANTS:
        commands[name] = ("participant", f"{MODULE}:{name}", "--database", f"sqlite:///{folder}/{name}.db")
    found = dict[str, Child]()
    for role, words in commands.items():
        environment = {
            **up.environment("administrator"),
            **(backend if role == "exporter" else {}),
            "ANTIPHON_HTTP": f"{HOST}:{free_port()}",
            "ANTIPHON_LOG": "json",
            GATE: str(folder / "gate"),
        }
        found[role] = Child(role, ["antiphon.deploy", *words], environment, folder / f"{role}.log")
    return found


async def _live(up: Platform, antiphon: Antiphon, children: dict[str, Child], seen: Prometheus) -> None:
    """Have sagas complete and be compensated, one be parked, and others wait for a participant that is stopped."""
    ended = [await antiphon.start(trip, Asked(), id=f"good-{number}") for number in range(4)]
    ended += [await antiphon.start(trip, Asked(how={"charge_card": "refuse"}), id="refused")]
    assert {(await handle.result(timeout=120)).outcome for handle in ended} == {"completed", "compensated"}
    stuck = await antiphon.start(trip, Asked(how={"stamp_slip": "fail"}), id="stuck")
    await until(lambda: _is_parked(stuck), what="a saga that waits for a person")
    await until(lambda: all(map(seen.is_fetched, COUNTED)), what="the pages of the coordinators that counted these")
    children["coordinator-2"].terminate()  # who waits for a person is counted at a coordinator's start, and each minute
    children[STOPPED].is_away = True
    children[STOPPED].terminate()
    children[STOPPED].wait()
    for number in range(3):
        await antiphon.start(trip, Asked(), id=f"waits-{number}")
    link = await up.connect("administrator")
    await link.store(subjects.event_subject(stuck.key.path, "bank", "bank-charged", "charge_card", 7), b"no envelope")
    await link.close()


async def _is_parked(handle: Handle) -> bool:
    with suppress(PlatformError):  # it has no journal yet
        return bool((await handle.status()).parked)
    return False


def _is_ready(child: Child) -> bool:
    return child.log.exists() and READY.search(child.log.read_text()) is not None


def _logs(children: dict[str, Child]) -> str:
    return "\n".join(f"--- {role} {each.exits}\n{each.log.read_text()[-1500:]}" for role, each in children.items())


# --- what is seen of it -----------------------------------------------------------------------------------------------


def _states(seen: Prometheus) -> set[tuple[str, str]]:
    return {(each["labels"]["alertname"], each["state"]) for each in seen.alerts()}


def _named_by_alerts(seen: Prometheus) -> tuple[set[str], set[str], set[str]]:
    """Which process is gone, which participant's commands nobody asks for, and who has given up on a command."""

    def named(alert: str, label: str) -> set[str]:
        return {each["labels"][label] for each in seen.alerts() if each["labels"]["alertname"] == alert}

    return (
        named("AntiphonProcessGone", "instance"),
        named("AntiphonParticipantGone", "messaging_consumer_group_name"),
        named("AntiphonAttemptsExhausted", "saga_participant"),
    )


def _expressions() -> Iterator[str]:
    """What the panels of all dashboards ask for."""
    for path in sorted((DEPLOY / "grafana").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            yield from (target["expr"] for target in panel["targets"])


def _metrics() -> set[str]:
    return {metric for expression in _expressions() for metric in METRIC.findall(expression)}


def _unfetched(seen: Prometheus) -> list[str]:
    """The metrics of the dashboards of which there is no sample."""
    return [each for each in sorted(_metrics() - ONLY_AFTER_TROUBLE.keys()) if not seen.is_fetched(each)]
