"""What `antiphon compare` says before it looks: whose database is not among those that it was given."""

from __future__ import annotations

import pytest

from antiphon.coordinator.definition.capabilities import capabilities_of, participants_of
from antiphon.deploy.cli.comparing import tell_left_out
from antiphon.order.saga import order

EVERYBODY = ("inventory", "billing", "shipping")


def test_whose_database_is_left_out_or_unknown_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    participants = participants_of(capabilities_of([order.definition]).sagas)
    tell_left_out(participants, EVERYBODY)
    assert capsys.readouterr().err == ""
    tell_left_out(participants, ["inventory", "biling", "shipping"])
    missing, unknown = capsys.readouterr().err.splitlines()
    assert "what billing did is not compared" in missing
    assert "no participant biling takes part" in unknown
