"""The definitions of one saga that a coordinator has: sagas in flight keep theirs, new ones begin with the newest."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from antiphon.contracts.errors import DefinitionError

from .definition import Definition


class Versions(msgspec.Struct, frozen=True):
    """All versions of one saga, the newest first."""

    definitions: tuple[Definition, ...]
    sources: tuple[str, ...]
    """All participants that any version knows."""
    is_led: bool
    """Whether every version is led by coordinators."""

    @property
    def newest(self) -> Definition:
        """What a new saga begins with."""
        return self.definitions[0]

    def labelled(self, label: str) -> Definition | None:
        """The definition that a journal names."""
        return next((definition for definition in self.definitions if definition.label == label), None)


def by_type(definitions: Iterable[Definition]) -> dict[str, Versions]:
    """Sort definitions, and those of the sagas they start, by saga type.

    Raises:
        DefinitionError: two have one version and different shapes.
    """
    found: dict[str, dict[int, Definition]] = {}
    for definition in with_children(definitions):
        versions = found.setdefault(definition.name, {})
        other = versions.setdefault(definition.version, definition)
        if other.shape != definition.shape:
            raise DefinitionError(
                f"saga {definition.name!r} has two definitions with version={definition.version}. Give the newer one "
                f"version={definition.version + 1}, and keep both until the sagas of the older one have ended."
            )
    return {name: _versions(versions) for name, versions in found.items()}


def _versions(versions: dict[int, Definition]) -> Versions:
    definitions = tuple(versions[number] for number in sorted(versions, reverse=True))
    sources = tuple(dict.fromkeys(source for each in definitions for source in each.sources))
    return Versions(definitions, sources, all(each.is_led for each in definitions))


def with_children(definitions: Iterable[Definition]) -> Iterator[Definition]:
    """Definitions, and those of all sagas that they start, however deep."""
    for definition in definitions:
        yield definition
        yield from with_children(definition.children)
