"""Text that somebody else wrote, made harmless for whoever looks at it: on a terminal, in a drawing, in a log.

A participant, a client or an operator writes reasons, names and subjects. A terminal obeys what stands in them: a
title is changed, the screen is cleared, a line is forged, the order of letters is turned round. So every renderer calls
this file at its edge. What is no letter, mark or sign that can be seen is written as its code; nothing is left out.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import Final

SPACES: Final = frozenset("\u00a0\u202f\u3000")
"""Spaces beside the common one that texts of people have."""

MARKS_MAX: Final = 4
"""How many combining marks may stand on one letter, as many as any language needs. More of them run over the lines
above and below."""

_UNSEEN: Final = (
    *(range(0x034F, 0x0350), range(0x115F, 0x1161), range(0x17B4, 0x17B6), range(0x180B, 0x1810)),
    *(range(0x2800, 0x2801), range(0x3164, 0x3165), range(0xFE00, 0xFE10), range(0xFFA0, 0xFFA1)),
    range(0xE0100, 0xE01F0),
)
"""Characters that Unicode counts as letters, marks or signs although nobody sees them: fillers, selectors, joiners."""


def harmless(text: str) -> str:
    r"""Foreign text in one line that can be shown anywhere.

    Control codes, line separators of every kind, marks that turn the direction of writing, characters without a width
    and half characters are written as their codes: `\x1b`, `\n`, `\u202e`, `\ud800`. The same text comes out when it is
    made harmless a second time. For languages in which further signs have a meaning (HTML, Mermaid, DOT) they are to be
    escaped afterwards.

    Args:
        text: what somebody wrote.

    Returns:
        The text, all of which can be seen.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if is_seen else _code(character) for character, is_seen in _looked_at(text))


def harmless_lines(text: str) -> str:
    """Foreign text of several lines, such as a traceback, each indented, so that none passes for a line of ours.

    Args:
        text: lines that end with a line feed; whatever else ends a line is written as its code.

    Returns:
        As many lines, each harmless.
    """
    return "\n".join(f"    {harmless(line)}".rstrip() for line in text.split("\n"))


def harmless_json(data: bytes) -> bytes:
    r"""JSON that says the same, and is harmless on a terminal too: what cannot be seen is escaped as `\u202e`.

    Args:
        data: JSON in UTF-8. JSON escapes the first 32 control codes itself, so line feeds in it are its own.

    Returns:
        JSON in UTF-8.
    """
    if data.isascii() and b"\x7f" not in data:
        return data
    looked_at = _looked_at(data.decode())
    return "".join(each if is_seen or each == "\n" else _json_code(each) for each, is_seen in looked_at).encode()


def _is_seen(character: str) -> bool:
    if character.isascii() or not character.isprintable():
        return character.isprintable() or character in SPACES
    return not any(ord(character) in each for each in _UNSEEN)


def _looked_at(text: str) -> Iterator[tuple[str, bool]]:
    """Each character, and whether it can be seen where it stands."""
    marks = 0
    for character in text:
        marks = marks + 1 if unicodedata.combining(character) else 0
        yield character, marks <= MARKS_MAX and _is_seen(character)


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _json_code(character: str) -> str:
    units = character.encode("utf-16-be")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2))
