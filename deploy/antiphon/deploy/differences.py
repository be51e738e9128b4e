"""`antiphon diff`: two definitions compared, and what that means for sagas in flight."""

from __future__ import annotations

from typing import Any, cast

import msgspec
import typer

from antiphon.coordinator.compare import compare
from antiphon.coordinator.saga import Saga

from .modules import load


def print_difference(before: str, after: str, as_json: bool) -> bool:
    """Print what separates two definitions, and return whether anything does."""
    kind = cast("type[Saga[Any]]", Saga)
    found = compare(load(before, kind).definition, load(after, kind).definition)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        typer.echo(f"{found.before} and {found.after}")
        for change in found.changes:
            typer.echo(f"  - {change}")
        for sentence in found.meaning:
            typer.echo(sentence)
    return bool(found.changes) or found.before != found.after
