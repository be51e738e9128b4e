"""Trace and span ids as hashes of what they are for, so that everybody computes the same ones, in any language. Pure.

A saga's trace id is the first 16 bytes of SHA-256 over `<type>/<id>`. A span id is the first 8 bytes of SHA-256 over
`<type>/<id>/<step>/<direction>/<attempt>/<kind>`; no part can hold a slash, so no two spans share a text.
"""

from __future__ import annotations

from hashlib import sha256

from antiphon.contracts.identity import SagaKey, digest
from antiphon.contracts.subjects import Sending


def trace_id(key: SagaKey) -> str:
    """A saga's trace id, as 32 hexadecimal digits."""
    return digest(key.type, key.id)[:16].hex()


def span_id(key: SagaKey, step: str, direction: str, attempt: int, kind: str) -> str:
    """A span's id, as 16 hexadecimal digits.

    Args:
        key: the saga.
        step: the step, or `<step>-<n>` for an element of one; empty for what belongs to no step.
        direction: `do`, `undo` or `close`; empty without a step.
        attempt: counted from 1; 0 for what spans several.
        kind: which of the spans; `tracing/README.md` lists them.
    """
    return sha256(f"{key.type}/{key.id}/{step}/{direction}/{attempt}/{kind}".encode()).digest()[:8].hex()


def traceparent(key: SagaKey, step: str, direction: Sending, attempt: int, is_sampled: bool = True) -> str:
    """What a command carries (W3C Trace Context): the span of the attempt at it, which others may hang theirs under,
    and whether the saga is sampled."""
    saga = digest(key.type, key.id)
    attempt_id = span_id(key, step, direction, attempt, "attempt")
    return f"00-{saga[:16].hex()}-{attempt_id}-{'01' if is_sampled else '00'}"
