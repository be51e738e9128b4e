"""What is said to people: where it ends, that nothing is said of nothing, and that it has the remedy."""

from __future__ import annotations

import pytest

from antiphon.contracts.errors import StillRunning
from antiphon.deploy.admin import comparison
from antiphon.deploy.admin.doctor import findings
from antiphon.deploy.render.terminal import say
from antiphon.link.connection import rights_missing


@pytest.mark.parametrize(
    ("sentence", "remedy"),
    [
        ("the server takes 3 bytes (max_payload)", "Set max_payload: 1MB on every server."),
        ("the file '/etc/my. Certificates/ca.pem' cannot be read", "Name another: NATS_CA."),
        ("its proxy (e.g. Envoy, No. 2. Or none) says no", "Ask `nats-1`. Then again."),
        ("a client, e.g. Envoy, is in the way", "End it."),
        ("version 2.9.1 is too old", "Run 2.12.8 or newer."),
        ("nothing mends it", ""),
    ],
)
def test_the_remedy_is_what_stands_behind_the_first_sentence(sentence: str, remedy: str) -> None:
    text = f"{sentence}. {remedy}" if remedy else sentence
    assert findings.in_two(text) == (sentence, remedy)


def test_saying_nothing_writes_no_empty_line(capsys: pytest.CaptureFixture[str]) -> None:
    say()
    say(*[])
    assert capsys.readouterr().out == ""
    say("")
    assert capsys.readouterr().out == "\n"


@pytest.mark.parametrize(
    ("unknown", "unread", "is_settled"),
    [({}, {}, True), ({"order/1": ["charge"]}, {}, False), ({}, {"order/1": "too many"}, False)],
)
def test_a_comparison_is_not_settled_while_a_saga_is_lost_or_unread(
    unknown: dict[str, list[str]], unread: dict[str, str], is_settled: bool
) -> None:
    assert comparison.Comparison(0, [], unknown, unread).is_settled is is_settled


def test_who_waits_for_a_saga_is_told_what_to_do() -> None:
    said = str(StillRunning("order", "42", 5))
    for part in ("wait again", "--timeout", "antiphon wait says which process does not run", "antiphon show order/42"):
        assert part in said


def test_the_hint_about_several_pairs_of_streams_has_its_reason() -> None:
    said = str(rights_missing("$JS.API.DIRECT.GET.SAGA", "inventory"))
    assert "this user may not ask the server over how many: set ANTIPHON_STREAMS" in said
