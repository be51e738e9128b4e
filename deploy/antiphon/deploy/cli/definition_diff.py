"""`antiphon diff`: two definitions compared, and what that means for sagas in flight."""

from __future__ import annotations

import msgspec
import typer

from antiphon.coordinator.definition.compare import compare_definitions

from ..modules import load_saga


def print_difference(before: str, after: str, as_json: bool) -> bool:
    """Print what separates two definitions, and return whether anything does."""
    found = compare_definitions(load_saga(before).definition, load_saga(after).definition)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        typer.echo(f"{found.before} and {found.after}")
        for change in found.changes:
            typer.echo(f"  - {change}")
        for sentence in found.meaning:
            typer.echo(sentence)
    return bool(found.changes) or found.before != found.after
