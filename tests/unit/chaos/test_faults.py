"""What may be planned for a process is what it can come by."""

from __future__ import annotations

from pathlib import Path

import pytest

from antiphon.contracts import Command, Event
from antiphon.contracts.errors import PlatformError
from antiphon.deploy.chaos.faults import COORDINATOR_POINTS, Faults, points_of
from antiphon.participants import Outside, Participant, Transaction


class Written(Event, name="written", owner="poet"):
    pass


class Write(Command[Written], name="write"):
    pass


def poet(*, is_outside: bool) -> Participant:
    """A participant with one handler."""
    found = Participant("poet")
    if is_outside:

        @found.handles(Write, outside=True)
        async def call(command: Write, outside: Outside) -> Written:
            return Written()

    else:

        @found.handles(Write)
        async def write(command: Write, tx: Transaction) -> Written:
            return Written()

    return found


@pytest.mark.parametrize("point", ["before_effect", "after_effect", "worker.claimed", "worker.outside_done"])
def test_a_point_of_handlers_outside_is_refused_where_there_is_none(tmp_path: Path, point: str) -> None:
    with pytest.raises(
        PlatformError, match=r"comes by '.*outside=True.*on_delivery, before_commit, after_commit, after"
    ):
        Faults(tmp_path / "a", points_of("poet", poet(is_outside=False))).kill_at(point, 1)
    with pytest.raises(PlatformError):
        Faults(tmp_path / "b", COORDINATOR_POINTS).kill_at(point, 1)
    faults = Faults(tmp_path / "c", points_of("poet", poet(is_outside=True)))
    faults.kill_at(point, 2)
    assert len(faults.left) == 2
    assert [*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()] == []


def test_other_points_are_planned_by_their_words_and_by_their_names(tmp_path: Path) -> None:
    faults = Faults(tmp_path, points_of("poet", poet(is_outside=False)))
    faults.kill_at("after_commit", 1)
    faults.kill_at("worker.released", 1)
    assert faults.left == ["after_commit", "worker.released"]
    with pytest.raises(PlatformError, match="there is no point 'never': on_delivery, before_commit"):
        faults.kill_at("never", 1)
