"""Sagas as tables: what happened has its place, however long the names are that somebody chose."""

from __future__ import annotations

import pytest

from antiphon.coordinator.views.timeline import Line, Timeline
from antiphon.deploy.render.tables import print_timeline


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
    assert any("+31,541,123.4 ms" in each and "shipping.scheduled.v1" in each for each in shown), shown


def test_what_was_not_taken_in_is_told_apart_from_what_came_after_the_end(capsys: pytest.CaptureFixture[str]) -> None:
    lines = [line(0, "began"), line(20, "early", late=True), line(80, "ended"), line(90, "behind", late=True)]
    shown = "\n".join(drawn(lines, capsys))
    assert "early (not taken in)" in shown
    assert "behind (after the end)" in shown
    running = "\n".join(drawn(lines, capsys, "running"))
    assert "early (not taken in yet)" in running
