"""`antiphon diff`: two definitions compared, and what that means for sagas in flight."""

from __future__ import annotations

from antiphon.coordinator.definition.compare import compare_definitions

from ..modules import load_saga
from ..render.terminal import say, say_json


def print_difference(before: str, after: str, as_json: bool) -> bool:
    """Print what separates two definitions, and return whether anything does."""
    found = compare_definitions(load_saga(before).definition, load_saga(after).definition)
    if as_json:
        say_json(found)
    else:
        say(f"{found.before} and {found.after}", *(f"  - {change}" for change in found.changes), *found.meaning)
    return bool(found.changes) or found.before != found.after
