"""What `antiphon list` prints of the read model's rows."""

import pytest

from antiphon.coordinator.views.summary import Overview
from antiphon.deploy.cli.listing import listed, print_listed


def test_a_long_reason_is_cut_in_the_table_and_whole_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    row = Overview(type="trip", id="t1", state="compensated", started_ns=1, ended_ns=2, reason="full " * 200)
    each = listed(row, now_ns=3)
    print_listed([each])
    printed = capsys.readouterr().out
    assert (printed.count("full"), "…" in printed, each.reason.count("full")) == (32, True, 200)
