"""The list of commands is read from the top by who begins: in panels, each command in one."""

from __future__ import annotations

import re

import typer.main
from typer.testing import CliRunner

from antiphon.deploy.cli.help import PANELS
from antiphon.deploy.cli.main import app

WIDE = {"COLUMNS": "160", "TERMINAL_WIDTH": "160"}


def shown(*arguments: str) -> str:
    return CliRunner().invoke(app, [*arguments, "--help"], env=WIDE).stdout


def test_each_command_stands_in_a_panel() -> None:
    command: object = typer.main.get_command(app)
    named = {*getattr(command, "commands", {})}
    in_panels = [name for names in PANELS.values() for name in names]
    assert sorted(in_panels) == sorted(named)


def test_the_panels_begin_with_the_first_steps() -> None:
    titles = re.findall(r"^╭─ (.*?) ─+╮$", shown(), re.MULTILINE)
    assert [title for title in titles if title in PANELS] == [*PANELS]
    assert [*PANELS][:3] == ["First steps", "Sagas", "What waits for a person"]
    assert "Commands" not in titles


def test_the_help_of_a_command_says_the_words_that_it_takes() -> None:
    signal, resolve = " ".join(shown("signal").split()), " ".join(shown("resolve").split())
    assert "order-approved for order.approved" in signal
    assert "the point of no return" in resolve
    assert "Each run of a handler outside=True is a claim with a number" in resolve
    for command in ("show", "trace"):
        assert "Example: antiphon " + command in " ".join(shown(command).split())
