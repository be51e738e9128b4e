"""The numbers on the wire, each with its bounds. Pure.

Whoever may write a message may write any number into it. So every number has its bounds where the message is decoded,
for all readers alike: one that is out of bounds makes its message unreadable, as a text in its place would.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta

SEQUENCE_DIGITS: Final = 19
"""The most that fit the 64 bits of a stream's sequence, or of a time in nanoseconds, for sure."""
SEQUENCE_MAX: Final = 2**63 - 1
NUMBER_MAX: Final = 2**31 - 1
"""The largest attempt or claim: what an INTEGER of PostgreSQL holds."""
TRIES_MAX: Final = 1_000_000
"""How many calls of a handler an answer tells of. Whoever counts more says so many."""
ELEMENTS_MAX: Final = 10_000
"""More elements than any list has: each of them is an entry, and a journal has 900."""

Sequence = Annotated[int, Meta(ge=0, le=SEQUENCE_MAX)]
"""A place in a stream."""
Number = Annotated[int, Meta(ge=0, le=NUMBER_MAX)]
"""An attempt, a claim, a version, a count of what a journal has."""
Tries = Annotated[int, Meta(ge=0, le=TRIES_MAX)]
Element = Annotated[int, Meta(ge=0, le=ELEMENTS_MAX)]
Elements = Annotated[int, Meta(ge=-1, le=ELEMENTS_MAX)]
"""How many elements there are; -1 where that is not said."""
Tally = Annotated[int, Meta(ge=1, le=2**53)]
"""How many messages were counted."""

NUMBER_CHARS_MAX: Final = 40
"""Longer than any number is written that means anything."""
REASON_CHARS_MAX: Final = 1000
"""How much of a reason goes from one message into another: enough for a sentence. Else one that fills its message would
make the next too large for the protocol, or for the server."""

SequenceText = Annotated[str, Meta(max_length=NUMBER_CHARS_MAX)]
"""A sequence as a text; `digits_of` reads it."""
CauseText = Annotated[str, Meta(max_length=NUMBER_CHARS_MAX)]
"""The fact that a journal entry names; `cause_sequence` and `cause_ns` read it."""
SecondsText = Annotated[str, Meta(max_length=NUMBER_CHARS_MAX)]
"""A length of time; `clock.duration_ns` reads it."""
RetryText = Annotated[str, Meta(max_length=128)]
"""How often something is tried; `parse_retry` reads it."""


def digits_of(text: str, digits_max: int = SEQUENCE_DIGITS) -> int | None:
    """The number that a text of decimal digits says; None where it is no such text, or a longer one."""
    if not (text.isascii() and text.isdigit() and len(text) <= digits_max):
        return None
    return min(int(text), SEQUENCE_MAX)
