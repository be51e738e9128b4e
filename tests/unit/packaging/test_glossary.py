"""The glossary in contracts/README.md is held against the code: its owners exist, and words it replaced are gone."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.packaging.project import NAMESPACES, ROOT, files

README = (ROOT / "contracts/README.md").read_text()
ROW = re.compile(r"^\| ([a-z -]+) \| (.+) \| `([\w.]+)` \|$", re.MULTILINE)

REPLACED_WORDS = frozenset(
    {
        *("duties", "errand", "errands", "explain", "halt", "halted", "halts", "hearing", "lose", "obey", "sayings"),
        *("storing", "tells", "wish"),
    }
)
"""Words that stand in no identifier any more: each has one of the glossary's in its place."""

FORMER_NAMES = frozenset({"HaltVerbs"})
"""Public names that users may import, and that stay beside the new ones."""
REPLACED_MODULES = frozenset(
    {
        *("asked", "errand", "halt_errand", "keys", "lock_errand", "picture", "purged", "review", "waiting", "walk"),
        *("who", "wire"),
    }
)
"""The same for names of modules, where the word itself is still needed."""

REPLACED_PHRASES = frozenset(
    {
        "880 entries",
        "by themselves until",
        "deaths that were its own",
        "is counted out with it",
        "is kept for its way out",
        "never was and never will be",
        "no more note of",
        "one at a time is between",
        "take note",
        "taken note",
        "takes note",
        "took note",
        "wants a person",
    }
)
"""What had to be read twice, on pages, in docstrings, in `--help` and in what is printed."""


def glossary() -> list[tuple[str, str, str]]:
    """Word, meaning and owner of each row."""
    section = README.partition("\n# Glossary\n")[2].partition("\n# ")[0]
    return [(word, meaning, owner) for word, meaning, owner in ROW.findall(section)]


def sources() -> list[Path]:
    found = [path for namespace in NAMESPACES for path in sorted(namespace.rglob("*.py"))]
    return [path for path in found if not path.stem.endswith("_pb2")]


def identifiers(tree: ast.AST) -> Iterator[str]:
    """Every name that a module defines or uses."""
    for node in ast.walk(tree):
        for field in ("id", "attr", "name", "arg", "asname"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name


def words_of(identifier: str) -> set[str]:
    """The words of a name, in whichever case it is written."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", identifier)}


def test_every_row_of_the_glossary_is_read() -> None:
    section = README.partition("\n# Glossary\n")[2].partition("\n# ")[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(glossary()) == len(rows) - 2 > 50  # less the head and the line below it


def test_no_word_stands_twice_and_all_are_sorted() -> None:
    words = [word for word, _, _ in glossary()]
    assert words == sorted(set(words))


def test_every_meaning_is_one_sentence() -> None:
    wrong = [word for word, meaning, _ in glossary() if not re.fullmatch(r"[A-Z][^.]*\.", meaning)]
    assert wrong == []


@pytest.mark.parametrize(("word", "owner"), [(word, owner) for word, _, owner in glossary()])
def test_the_owner_of_a_word_exists(word: str, owner: str) -> None:
    module, _, name = owner.rpartition(".")
    found = importlib.import_module(f"antiphon.{module}")
    assert hasattr(found, name), f"{word}: antiphon.{module} has no {name}"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_no_identifier_has_a_word_that_was_replaced(path: Path) -> None:
    found = {name for name in identifiers(ast.parse(path.read_text())) if words_of(name) & REPLACED_WORDS}
    assert found <= FORMER_NAMES
    assert path.stem not in REPLACED_MODULES
    assert not words_of(path.stem) & REPLACED_WORDS


def test_a_word_is_found_in_whatever_case_a_name_is_written() -> None:
    assert words_of("_HaltVerbs_obey") == {"halt", "verbs", "obey"}
    assert words_of("LOCK_ERRAND") == {"lock", "errand"}


def test_a_public_name_that_was_replaced_is_still_imported_from_where_it_was() -> None:
    from antiphon.coordinator import HaltVerbs, PauseVerbs

    assert HaltVerbs is PauseVerbs


def phrases_in(text: str) -> set[str]:
    """The replaced phrases of a text, also where a line ends within one."""
    flat = re.sub(r"\s+", " ", text)
    return {phrase for phrase in REPLACED_PHRASES if phrase in flat}


def pages_and_sources() -> list[Path]:
    """What people read: pages, sources, and texts that tests compare with what is printed."""
    return [path for path in files() if path.suffix in (".md", ".py", ".txt") and path != Path(__file__)]


def test_no_page_and_no_source_has_a_phrase_that_was_replaced() -> None:
    found = {str(path.relative_to(ROOT)): phrases_in(path.read_text()) for path in pages_and_sources()}
    assert {path: phrases for path, phrases in found.items() if phrases} == {}


def test_a_phrase_is_found_where_a_line_ends_within_it() -> None:
    assert phrases_in("Of all sagas one at a time is\n    between its first step and its end.") == {
        "one at a time is between"
    }
