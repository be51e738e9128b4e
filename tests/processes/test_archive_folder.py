"""`antiphon archive` takes a folder where its siblings take a saga: who gives a saga is told so."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from antiphon.deploy.cli.archives import require_folder
from antiphon.deploy.cli.main import app
from antiphon.deploy.modules import CannotLoad


def test_what_looks_like_a_saga_is_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CannotLoad) as raised:
        require_folder(Path("order/order-42"))
    assert str(raised.value) == (
        "order/order-42 is no folder, and looks like a saga. antiphon archive writes all sagas that have ended into a "
        "FOLDER; one of them is seen with antiphon show order/order-42. If you mean a new folder: "
        "mkdir -p order/order-42"
    )
    (tmp_path / "order").mkdir()
    require_folder(Path("order/order-42"))
    for folder in ("archive", "/var/no/archive", "a/b/c", "../order/x", "order.d/x y"):
        require_folder(Path(folder))
    assert [*tmp_path.iterdir()] == [tmp_path / "order"]


def help_of(command: str) -> str:
    """The help in one line, wherever it is broken."""
    return " ".join(CliRunner().invoke(app, [command, "--help"]).stdout.split())


def test_the_usage_says_that_it_takes_a_folder() -> None:
    shown = help_of("archive")
    assert "archive [OPTIONS] {FOLDER}" in shown
    assert "into a folder" in shown


def test_the_example_of_list_needs_nothing_that_a_first_project_has_not() -> None:
    shown = help_of("list")
    assert "Example: antiphon list --type order --limit 20" in shown
    assert "With a read model: antiphon list --database sqlite:///sagas.db --state running" in shown
