"""Sagas as tables: what happened has its place, however long the names are that somebody chose."""

from __future__ import annotations

import pytest

from antiphon.coordinator.views.timeline import Line, Timeline
from antiphon.deploy.render.tables import print_summaries, print_timeline


def line(ms: float, text: str, step: str = "charge", *, late: bool = False) -> Line:
    who, stream = "billing", "EVENTS"
    return Line(
        at="", since_start_ms=ms, kind="answer", who=who, step=step, text=text, stream=stream, sequence=1, late=late
    )


def drawn(lines: list[Line], capsys: pytest.CaptureFixture[str], state: str = "completed") -> list[str]:
    print_timeline(Timeline(type="order", id="o1", state=state, reason="", definition="", lines=tuple(lines)))  # type: ignore[arg-type]
    return capsys.readouterr().out.splitlines()


def test_a_long_name_takes_no_room_from_what_happened(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    shown = drawn([line(0, "payment.charged.v1"), line(31_541_123.4, "shipping.scheduled.v1", "x" * 500)], capsys)
    assert any("+8:45:41 h" in each and "shipping.scheduled.v1" in each for each in shown), shown


def test_what_was_not_taken_in_is_told_apart_from_what_came_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(0, "began"), line(20, "early", late=True), line(80, "ended"), line(90, "behind", late=True)]
    shown = "\n".join(drawn(lines, capsys))
    assert "early (not taken in)" in shown
    assert "behind (after the end)" in shown
    running = "\n".join(drawn(lines, capsys, "running"))
    assert "early (not taken in yet)" in running


def test_words_that_need_it_are_explained_below_where_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(0, "began"), line(5, "superseded: a compensation came first"), line(20, "early", late=True)]
    shown = drawn([*lines, line(80, "ended")], capsys)
    assert [each.partition(":")[0] for each in shown[-2:]] == ["not taken in", "superseded"]
    assert "nothing followed from it" in shown[-2]
    assert not any("exhausted" in each for each in shown)
    assert drawn([line(0, "began")], capsys)[-1].strip().endswith("began")


@pytest.mark.parametrize(
    ("ms", "told"),
    [
        (0, "+0.0 ms"),
        (999.94, "+999.9 ms"),
        (3_214.5, "+3.21 s"),
        (3_086_589.8, "+51:27 min"),
        (31_541_123.4, "+8:45:41 h"),
        (200_000_000, "+2 d 7:33:20 h"),
    ],
)
def test_a_time_is_told_in_a_unit_that_can_be_read(ms: float, told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn([line(ms, "said")], capsys)[-1].split("✓")[0].strip() == told


@pytest.mark.parametrize(
    ("saga_type", "told"), [("*", "no sagas were started"), ("nope", "no sagas of type nope were")]
)
def test_where_nothing_is_listed_it_is_said_of_which_type(
    saga_type: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_summaries([], saga_type)
    assert told in capsys.readouterr().out
