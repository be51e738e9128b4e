"""What the server's answers to a publish mean."""

import msgspec
import pytest

from antiphon.contracts.errors import Ambiguous, Conflict, InFlight
from antiphon.contracts.stored import (
    AlreadyStored,
    NobodyReads,
    NobodyStores,
    NoPlace,
    NoRoom,
    Rejected,
    TooManySubjects,
)
from antiphon.link.outcomes import outcome_of
from antiphon.link.reading import Pages, Read


@pytest.mark.parametrize(
    ("code", "err_code", "description", "meaning"),
    [
        (400, 10071, "wrong last sequence: 7", Conflict),
        (400, 10164, "wrong last sequence", InFlight),
        (503, 10077, "maximum messages per subject exceeded", AlreadyStored),
        (503, 10077, "no space left on device", NoRoom),
        (503, 10077, "maximum bytes exceeded", NoRoom),
        (503, 10077, "maximum messages exceeded", NoPlace),
        (503, 10023, "insufficient resources", NoRoom),
        (500, 10047, "insufficient storage resources available", NoRoom),
        (400, 10111, "rollup not permitted", Rejected),
        (503, 10008, "JetStream system temporarily unavailable", Ambiguous),
        (400, 10201, "given up", Ambiguous),
        (404, 10059, "stream not found", Rejected),
    ],
)
def test_an_error_means_by_its_code_what_may_have_become_of_the_write(
    code: int, err_code: int, description: str, meaning: type[Exception]
) -> None:
    error = {"code": code, "err_code": err_code, "description": description}
    outcome = outcome_of(msgspec.json.encode({"stream": "EVENTS", "error": error}), None)
    assert type(outcome) is meaning
    assert str(outcome) == f"{description} ({code}/{err_code})"


def test_an_answer_without_an_error_says_where_it_is_stored() -> None:
    assert outcome_of(b'{"stream":"EVENTS","seq":7}', None) == 7


def test_where_no_stream_has_the_subject_that_is_said() -> None:
    assert type(outcome_of(b"", b"NATS/1.0 503\r\n\r\n")) is NobodyStores


def test_what_cannot_be_read_says_nothing() -> None:
    assert type(outcome_of(b"{", None)) is Ambiguous


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        (b"503", NobodyReads),
        (b"503 No Responders", NobodyReads),
        (b"408 Bad Request", Ambiguous),
        (b"413 Too Many Results", TooManySubjects),
        (b"404 Message Not Found", list),
    ],
)
def test_what_a_status_says_of_a_direct_read(status: bytes, meaning: type) -> None:
    def then(pages: Pages) -> None:
        raise AssertionError(pages)

    read = Read(0.0, None, then)
    assert read.take(b"", b"NATS/1.0 " + status + b"\r\n\r\n")
    assert type(read.result) is meaning


@pytest.mark.parametrize(
    ("is_whole", "left", "meaning"), [(True, 3, TooManySubjects), (True, 0, list), (False, 3, list)]
)
def test_a_direct_read_that_was_cut_short_is_no_whole_answer(is_whole: bool, left: int, meaning: type) -> None:
    def then(pages: Pages) -> None:
        raise AssertionError(pages)

    read = Read(0.0, None, then, is_whole)
    assert read.take(b"", b"NATS/1.0 204 EOB\r\nNats-Num-Pending: %d\r\n\r\n" % left)
    assert type(read.result) is meaning
    assert read.left == left
