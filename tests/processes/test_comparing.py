"""What `antiphon compare` says before it looks: whose database is not among those that it was given."""

from __future__ import annotations

from tests.processes.test_command_line import antiphon


def compare(*participants: str) -> list[str]:
    """What is said of the databases, where there is no server to go on with."""
    databases = [f"--database={name}=sqlite:///{name}.db" for name in participants]
    return antiphon("compare", "--app=antiphon.order.saga", *databases).stderr.splitlines()[:-1]


def test_whose_database_is_left_out_or_unknown_is_told() -> None:
    assert compare("inventory", "billing", "shipping") == []
    missing, unknown = compare("inventory", "biling", "shipping")
    assert "what billing did is not compared" in missing
    assert "no participant biling takes part" in unknown
