"""What the README shows is there."""

from __future__ import annotations

import shlex
from pathlib import Path

from typer.testing import CliRunner

from antiphon.deploy.cli.main import app
from antiphon.deploy.modules import load_sagas
from antiphon.trips import reconciliation
from antiphon.trips.data import load_trips
from antiphon.trips.saga import confirmed
from tests.unit.packaging.readme import commands_of

FOLDER = Path(reconciliation.__file__).parent
README = (FOLDER / "README.md").read_text()


def test_it_names_every_module() -> None:
    modules = {path.name for path in FOLDER.glob("*.py")} - {"__init__.py"}
    assert sorted(name for name in modules if f"`{name}`" not in README) == []


def test_its_commands_and_their_options_exist_and_name_what_is_there() -> None:
    commands = [shlex.split(line) for line in commands_of(README)]
    assert [words[1] for words in commands] == ["up", "start", "signal", "show"]
    for words in commands:
        assert CliRunner().invoke(app, [*words[1:], "--help"]).exit_code == 0
    sagas = {saga.name for saga in load_sagas("antiphon.trips")}
    assert sagas == {"trip", "transfer"}
    assert load_trips()[0].trip_id in README
    assert f" {confirmed.name} --app antiphon.trips.saga:trip" in README
