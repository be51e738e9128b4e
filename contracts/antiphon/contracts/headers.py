"""Every header, built and read here and nowhere else."""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import msgspec

from .clock import rfc3339
from .identity import SagaKey, is_token
from .subjects import fired_subject, journal_filter, timer_subject

FORGET_HEADER: Final = "KV-Operation: DEL\r\n"
"""On an empty message: the key is gone, for whoever reads the bucket (ADR-8)."""


NO_STREAM: Final = "Nats-Expected-Stream: ANTIPHON-NONE\r\n"
"""No stream is called so: whatever is published with this header is stored nowhere."""


def guard_header(saga: SagaKey, last_sequence: int) -> str:
    """Store only if the journal's last entry has this stream sequence; 0 means that there is none yet.

    Every writer sends the same filter string: the server serialises guarded writes by that string (ADR-8; measured on
    three replicas, where a write under another string was accepted although it was stale).
    """
    return _guard(journal_filter(saga), last_sequence)


def first_timer_guard(saga: SagaKey) -> str:
    """Store the saga's first timer only if it has none, so that a second start cannot move it."""
    return _guard(timer_subject(saga), 0)


GUARD: Final = "Nats-Expected-Last-Subject-Sequence: "
"""How the header begins that lets a message be stored only after a certain one."""

FIRST: Final = f"{GUARD}0\r\n"
"""Store only what is the first at its own subject. Where there is one already, the server says whether that is stored
(10071) or only proposed (10164); its refusal of a second message does not."""


def _guard(subject_filter: str, last_sequence: int) -> str:
    return f"{GUARD}{last_sequence}\r\nNats-Expected-Last-Subject-Sequence-Subject: {subject_filter}\r\n"


def schedule_header(saga: SagaKey, due_ns: int) -> str:
    """Deliver this message to the saga's fired subject at `due_ns` (nanoseconds since 1970, UTC); ADR-51."""
    return f"Nats-Schedule: @at {rfc3339(due_ns)}\r\nNats-Schedule-Target: {fired_subject(saga)}\r\n"


def unschedule_header(saga: SagaKey) -> str:
    """Cancel the saga's timer with the write that carries this header."""
    return f"Nats-Schedule-Next: purge\r\nNats-Scheduler: {timer_subject(saga)}\r\n"


_TRACEPARENT = b'"traceparent":"'
_TRACEPARENT_CHARS = 55


def traceparent_header(message: bytes) -> str:
    """W3C Trace Context for whoever reads headers only: what the envelope says; empty where it says nothing.

    An envelope's `traceparent` stands at its end, so that it is found by its place, at no cost, and in no payload.
    """
    end = len(message) - 2
    start = end - _TRACEPARENT_CHARS
    if message[start - len(_TRACEPARENT) : start] != _TRACEPARENT:
        return ""
    return f"traceparent: {message[start:end].decode('ascii', 'replace')}\r\n"


_REQUEST_INFO: Final = b"\r\nNats-Request-Info:"


class _Asker(msgspec.Struct):
    acc: str = ""


_decode_asker: Final = msgspec.json.Decoder(_Asker).decode


@lru_cache(maxsize=256)
def asking_account(headers: bytes) -> str:
    """The account that a request was imported from, which the server adds; empty for one of the same account, or where
    it cannot be read."""
    start = headers.rfind(_REQUEST_INFO)
    if start < 0:
        return ""
    start += len(_REQUEST_INFO)
    try:
        account = _decode_asker(headers[start : headers.index(b"\r\n", start)]).acc
    except (msgspec.MsgspecError, ValueError):
        return ""
    return account if is_token(account) else ""
