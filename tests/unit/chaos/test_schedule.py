"""Schedules of faults: the same from the same seed, what a file says, and what is refused before anything starts."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from antiphon.contracts.errors import PlatformError
from antiphon.deploy.chaos.faults import COORDINATOR_POINTS, EXPORTER_POINTS, PARTICIPANT_POINTS, READMODEL_POINTS
from antiphon.deploy.chaos.schedule import (
    CALLS,
    KINDS,
    LEADER,
    Fault,
    Schedule,
    Targets,
    impossible,
    make,
    read,
    sort_of,
    write,
)
from antiphon.deploy.chaos.score import (
    Ran,
    Score,
    Spread,
    Struck,
    duration_of,
    kinds_of,
    leader_kills_of,
    outcomes_of,
    rows_of,
)
from antiphon.deploy.chaos.summary import TOLD_MAX, as_markdown

SHOP = Targets(
    participants={"stock": ["stock-1", "stock-2"], "billing": ["billing-1", "billing-2"]},
    coordinators=["coordinator-1", "coordinator-2"],
    servers=["nats-server-1", "nats-server-2", "nats-server-3"],
    calls=[("reserve", "do"), ("reserve", "undo"), ("pack-0", "do")],
    watchers=["exporter", "readmodel"],
    sqlite=["stock", "readmodel"],
    has_postgres=True,
    disks=["stock"],
)
SMALL = Targets({"stock": ["stock"]}, ["coordinator-1"], ["nats-server"])


def test_the_same_seed_makes_the_same_schedule_and_another_one_another() -> None:
    made = [make(seed, SHOP, count=40, every=2.0) for seed in (1, 1, 2)]
    assert made[0] == made[1]
    assert made[0].faults != made[2].faults


def test_every_sort_comes_up_before_one_comes_up_twice() -> None:
    faults = make(3, SHOP, count=200, every=2.0).faults
    sorts = Counter(sort_of(fault, SHOP) for fault in faults)
    first = make(3, SHOP, count=len(sorts), every=2.0).faults
    assert {sort_of(fault, SHOP) for fault in first} == sorts.keys()
    assert {fault.kind for fault in faults} == {*KINDS}
    assert {
        "poison client",
        "poison participant",
        "kill leader",
        "stop server",
        "lock database",
        "outage (kill)",
        "outage (partition)",
        "fill disk",
        "kill postgres",
        "restart postgres",
        "stop backend",
        "restart exporter",
        "kill readmodel before_commit",
        "fail in a compensation",
        "raise in a handler",
        "hang (deaf) in a handler",
        "kill participant after_commit",
    } <= sorts.keys()


@pytest.mark.parametrize("targets", [SHOP, msgspec.structs.replace(SHOP, outside=["billing"], has_branches=True)])
@pytest.mark.parametrize("seed", [1, 2, 3, 1_786_093_177])
def test_half_an_hour_has_many_faults_of_each_kind_and_kills_of_the_leader(targets: Targets, seed: int) -> None:
    faults = make(seed, targets, seconds=1_800, every=3.0).faults
    kinds = Counter(fault.kind for fault in faults)
    assert kinds.keys() == {*KINDS}
    assert min(kinds.values()) >= 25, kinds
    assert sum(fault.kind == "kill" and fault.target == LEADER for fault in faults) >= 20
    assert faults[-1].at < 1_830, "none has to wait long for a server that is left alone"
    sorts = Counter((fault.kind, sort_of(fault, targets)) for fault in faults)
    for kind in KINDS:
        mine = [count for (each, sort), count in sorts.items() if each == kind and sort != "kill leader"]
        assert max(mine) - min(mine) <= 1, kind


def test_kinds_that_a_platform_has_nothing_for_are_told_with_the_reason() -> None:
    assert impossible(SHOP) == {}
    assert impossible(SMALL) == {
        "fail": "no step has a handler to fail",
        "raise": "no step has a handler to fail",
        "hang": "no step has a handler to fail",
        "lock": "nobody has an SQLite database",
        "fill": "nobody has a small disk",
        "outage": "one server has no quorum to lose",
    }


def test_processes_die_only_at_points_that_the_sagas_come_by() -> None:
    branching = msgspec.structs.replace(SHOP, outside=["billing"], has_branches=True)
    points = [(fault.target, fault.point) for fault in make(8, branching, count=400, every=2.0, kinds=["point"]).faults]
    others = {*EXPORTER_POINTS, *READMODEL_POINTS}
    assert {point for _, point in points} == {*PARTICIPANT_POINTS, *COORDINATOR_POINTS, *others}
    at_effects = {target for target, point in points if point.endswith("_effect")}
    assert at_effects == {"billing-1", "billing-2"}
    plain = {fault.point for fault in make(8, SHOP, count=400, every=2.0, kinds=["point"]).faults}
    assert plain.isdisjoint({"before_effect", "after_effect", "between_appends"})


def test_one_server_at_a_time_is_harmed_and_no_process_twice_at_once() -> None:
    faults = make(4, SHOP, seconds=900, every=1.0).faults
    by_place: dict[str, list[Fault]] = {}
    for fault in faults:
        if fault.kind not in (*CALLS, "poison"):
            place = "servers" if SHOP.owner(fault.target) in ("server", LEADER) else fault.target
            place += " database" if fault.kind in ("lock", "fill") else ""
            by_place.setdefault(place, []).append(fault)
    assert len(by_place) == 13
    for harmed in by_place.values():
        assert all(one.at + one.seconds < next_one.at for one, next_one in pairwise(harmed))


def test_one_server_has_no_outage_and_a_cluster_has_three_kinds() -> None:
    with pytest.raises(PlatformError, match="outage is not possible here: one server has no quorum to lose"):
        make(8, SMALL, count=3, every=1.0, kinds=["outage"])
    faults = make(8, SHOP, count=12, every=1.0, kinds=["outage", "kill"]).faults
    assert {fault.how for fault in faults if fault.kind == "outage"} == {"kill", "stop", "partition"}
    assert all(fault.target in SHOP.servers for fault in faults if fault.kind == "outage")


def test_so_many_faults_are_spread_over_so_long() -> None:
    faults = make(5, SHOP, count=20, seconds=300, every=1.0).faults
    assert len(faults) == 20
    assert 250 < faults[-1].at < 330


def test_what_is_asked_for_and_not_possible_is_said() -> None:
    assert {fault.kind for fault in make(6, SMALL, count=30, every=1.0, kinds=["kill", "slow"]).faults} == {
        "kill",
        "slow",
    }
    with pytest.raises(PlatformError, match="a fault of the kind fail is not possible here"):
        make(6, SMALL, count=30, every=1.0, kinds=["kill", "fail"])


@pytest.mark.parametrize("name", ["faults.toml", "faults.json"])
def test_a_schedule_comes_back_from_a_file_as_it_was(name: str, tmp_path: Path) -> None:
    schedule = make(7, SHOP, count=60, every=2.0)
    write(schedule, tmp_path / name)
    assert read(tmp_path / name, SHOP) == schedule


def test_a_person_writes_what_matters_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[[faults]]\nat = 5\nkind = "stop"\ntarget = "leader"\nseconds = 2\n\n'
        '[[faults]]\nat = 1.5\nkind = "fail"\nstep = "pack-7"\ntimes = 2\n'
    )
    assert read(path, SHOP) == Schedule(
        (Fault(1.5, "fail", step="pack-7", times=2), Fault(5.0, "stop", "leader", seconds=2.0))
    )


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"kind": "kill", "target": "till"}, "there is no 'till' here; there are backend, billing"),
        ({"kind": "kill"}, "there is no '' here"),
        ({"kind": "kill", "target": "client"}, "a client can be cut off and slowed, and publish"),
        ({"kind": "stop", "target": "stock"}, "say with `seconds` after how long it is over"),
        ({"kind": "slow", "target": "stock", "seconds": 1}, "say with `delay` by how many seconds"),
        ({"kind": "partition", "target": "stock", "other": "till", "seconds": 1}, "there is no 'till'"),
        ({"kind": "fail", "step": "pay"}, "no step here has such a handler to fail; name one of pack-0, reserve"),
        ({"kind": "fail", "step": "pack-1", "direction": "undo"}, "no step here has such a handler to fail"),
        ({"kind": "point", "target": "stock", "point": "after_append"}, "no point 'after_append'; name one of on_del"),
        ({"kind": "point", "target": "leader", "point": "on_delivery"}, "it has no point 'on_delivery'"),
        ({"kind": "kill", "target": "stock", "at": -1}, "no time is before the beginning"),
        (
            {"kind": "raise", "step": "reserve", "error": "OSError"},
            "say with `error` what is raised, one of SystemExit",
        ),
        ({"kind": "hang", "step": "reserve"}, "say with `how` in which way it hangs, one of wait, deaf, block"),
        ({"kind": "hang", "step": "reserve", "how": "block"}, "of the last for how many `seconds`"),
        (
            {"kind": "outage", "target": "leader", "seconds": 1, "how": "kill"},
            "name one of three servers, say `seconds`",
        ),
        ({"kind": "lock", "target": "billing", "seconds": 1}, "name one of stock, readmodel, and say `seconds`"),
        ({"kind": "stop", "target": "postgres", "seconds": 1}, "PostgreSQL can be killed and restarted only"),
        ({"kind": "kill", "target": "backend"}, "a tracing backend can be stopped only"),
        (
            {"kind": "point", "target": "exporter", "point": "after_commit"},
            "name one of on_delivery, before_send",
        ),
        ({"kind": "poison", "target": "stock-1"}, "only a user can publish: client, stock, billing"),
        ({"kind": "poison", "target": "client", "message": "lock"}, "it has no such message; name one of noise, overs"),
        ({"kind": "explode", "target": "stock"}, "holds no schedule: Invalid enum value 'explode'"),
        ({"kind": "kill", "target": "stock", "second": 1}, "holds no schedule: Object contains unknown field `second`"),
    ],
)
def test_a_fault_that_cannot_be_is_refused_with_a_sentence(
    fault: dict[str, object], sentence: str, tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(msgspec.json.encode({"faults": [{"at": 1, **fault}]}))
    with pytest.raises(PlatformError) as told:
        read(path, SHOP)
    assert sentence in str(told.value)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(PlatformError, match=r"cannot read the schedule .*: No such file"):
        read(tmp_path / "none.toml", SHOP)


def test_recovery_is_told_by_sort_for_new_sagas_for_those_under_way_and_for_processes() -> None:
    ran = [
        Ran("order/1", 0.0, 1.0, "completed"),
        Ran("order/2", 1.5, 9.0, "compensated"),  # under way at both faults
        Ran("order/3", 3.0, 4.0, "completed"),
        Ran("order/4", 5.0, 7.0, "completed"),
        Ran("order/5", 8.0),
    ]
    kill = Fault(2.0, "kill", "stock-1")
    struck = [Struck(kill, "kill participant", "stock-1", at, at + 1.5) for at in (2.0, 4.5)]
    struck.append(Struck(Fault(8.5, "fail", step="reserve"), "fail a handler", "", 8.5))
    fail, killed = rows_of(struck, ran)
    assert (killed.sort, killed.faults) == ("kill participant", 2)
    assert (killed.next_saga, killed.under_way, killed.process) == (
        Spread(2.25, 2.5),
        Spread(5.75, 7.0),
        Spread(1.5, 1.5),
    )
    assert (fail.next_saga, fail.under_way, fail.process) == (None, None, None), "one under way never ended"
    assert outcomes_of(ran) == {"completed": 3, "compensated": 1, "open": 1}


def test_a_storm_is_kept_as_a_document_with_its_seed_counts_recovery_by_kind_outcomes_and_throughput() -> None:
    ran = [Ran("order/1", 0.0, 3.0, "completed"), Ran("order/2", 2.5, 4.0, "compensated"), Ran("order/3", 9.0)]
    struck = [
        Struck(Fault(2.0, "kill", LEADER), "kill leader", "nats-server-2", 2.0, 3.5),
        Struck(Fault(2.0, "kill", "stock"), "kill participant", "stock", 2.0, 3.0),
    ]
    score = Score(
        seed=7,
        seconds=120.0,
        sagas=3,
        faults=2,
        outcomes=outcomes_of(ran),
        rate=0.1,
        duration=duration_of(ran),
        kinds=kinds_of(struck, ran),
        leader_kills=leader_kills_of(struck),
        rows=rows_of(struck, ran),
        impossible=["lock stock was not possible"],
        violations=["I1 order/3 has not | ended"],
        told="\n".join(["order/3"] * (TOLD_MAX + 3)),
    )
    lines = as_markdown(score, "A storm", [("machine", "2 cores")]).splitlines()
    assert lines[0] == "# A storm"
    for line in (
        "| machine | 2 cores |",
        "| seed | 7 |",
        "| duration | 120 s |",
        "| kills of the stream's leader | 1 |",
        "| throughput | 0.1 sagas/s |",
        "| a saga, p50 / max | 2.2 / 3.0 s |",
        "| kill | 2 | 2.0 / 2.0 | 1.0 / 1.0 | 1.2 / 1.5 |",
        "| kill leader | 1 | 2.0 / 2.0 | 1.0 / 1.0 | 1.5 / 1.5 |",
        "| compensated | 1 |",
        "| open | 1 |",
        "- lock stock was not possible",
        "- I1 order/3 has not | ended",
        "    … and 3 lines more",
    ):
        assert line in lines, line
    assert lines[-1] == "`chaos: 3 sagas, 2 faults, 1 violations`"
