"""Foreign text is shown whole, and a terminal obeys none of it."""

from __future__ import annotations

import json
import sys
import unicodedata

import pytest

from antiphon.contracts.foreign_text import MARKS_MAX, harmless, harmless_json, harmless_lines
from tests.support.hostile import HALF, HOSTILE, assert_harmless, harm_in

HONEST = (
    *(
        "card declined: 3 of 5 (50 %)",
        "Überweisung über 5 € – „später“",
        "Ελληνικά",
        "日本語　テキスト",
        "עִבְרִית",
        "العربية",
    ),
    *("tiếng Việt", "हिन्दी", "ภาษาไทย", "prix : 5 €", "x² ≤ y → ∞", "C:\\new\\table", "🚚 ✓"),
)


def test_no_character_that_harms_is_left() -> None:
    everything = "".join(map(chr, range(sys.maxunicode + 1)))
    assert harm_in(harmless(everything)) == []
    assert harm_in(harmless(HOSTILE + HALF)) == []


def test_every_character_is_there_to_be_seen() -> None:
    for number in range(sys.maxunicode + 1):
        character = chr(number)
        shown = harmless(character)
        assert shown == character or shown.encode().decode("unicode_escape") == character


@pytest.mark.parametrize("text", HONEST)
def test_the_texts_of_people_stay_as_they_are(text: str) -> None:
    assert harmless(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;x\x07", r"\x1b]0;x\x07"),
        ("a\r\nb\tc", r"a\r\nb\tc"),
        ("\x85\u2028\u2029\x0b\x0c", r"\x85\u2028\u2029\x0b\x0c"),
        ("\x9b2J", r"\x9b2J"),
        ("\u202etxt.exe", r"\u202etxt.exe"),
        ("a\u200bb\ufeff", r"a\u200bb\ufeff"),
        (HALF, r"\ud800"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_what_cannot_be_seen_is_shown_as_its_code(text: str, shown: str) -> None:
    assert harmless(text) == shown


def test_marks_do_not_run_over_other_lines() -> None:
    shown = harmless("e" + "\u0301" * 40)
    assert sum(map(bool, map(unicodedata.combining, shown))) == MARKS_MAX
    assert shown.count("\\u0301") == 40 - MARKS_MAX


def test_text_that_is_harmless_stays_as_it_is() -> None:
    once = harmless(HOSTILE + HALF)
    assert harmless(once) == once


def test_no_line_of_several_passes_for_one_of_ours() -> None:
    shown = harmless_lines(f"ValueError: {HOSTILE}\nantiphon: all is well")
    assert all(line.startswith("    ") for line in shown.split("\n"))
    assert_harmless(shown)


def test_json_says_the_same_and_is_harmless() -> None:
    data = json.dumps({HOSTILE: [HOSTILE, "Überweisung", "\U000e0041"]}, ensure_ascii=False, indent=1).encode()
    shown = harmless_json(data)
    assert json.loads(shown) == json.loads(data)
    assert "Überweisung" in shown.decode()
    assert harm_in(shown.decode()) == []
