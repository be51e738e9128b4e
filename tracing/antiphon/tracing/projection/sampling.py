"""Which sagas are traced from their start on: a hash and a ratio decide, once a saga. Pure.

A journal's first command carries the decision in its `traceparent`. Whoever goes on with the saga, and whoever exports
it, repeats it, whatever the ratio of that process is. What is left out is exported all the same at its end if it turned
out to be worth looking at; see `exporter.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from antiphon.contracts.errors import PlatformError


def ratio_of(environment: Mapping[str, str]) -> float:
    """The share of sagas to be traced, from OTEL_TRACES_SAMPLER and OTEL_TRACES_SAMPLER_ARG; all by default.

    Raises:
        PlatformError: they say nothing that makes sense here.
    """
    sampler = environment.get("OTEL_TRACES_SAMPLER", "always_on").removeprefix("parentbased_")
    text = environment.get("OTEL_TRACES_SAMPLER_ARG", "1")
    match sampler:
        case "always_on":
            return 1.0
        case "always_off":
            return 0.0
        case "traceidratio":
            try:
                ratio = float(text)
            except ValueError:
                ratio = -1.0
            if 0 <= ratio <= 1:
                return ratio
            raise PlatformError(f"OTEL_TRACES_SAMPLER_ARG={text}: give a share of sagas between 0 and 1.")
        case _:
            raise PlatformError(
                f"OTEL_TRACES_SAMPLER={sampler}: give always_on, always_off or traceidratio; a hash chooses sagas."
            )


def is_sampled(trace_id: bytes, ratio: float) -> bool:
    """Whether a trace is among the chosen: as OpenTelemetry's TraceIdRatioBased, by the last 8 bytes of its id."""
    return ratio >= 1 or int.from_bytes(trace_id[8:16]) < ratio * 2**64


def decision_in(traceparent: str) -> bool | None:
    """Whether the saga of a command is sampled, as its `traceparent` says; None where it says nothing."""
    return _DECISIONS.get(traceparent[_FLAGS_AT:])


_FLAGS_AT: Final = len("00-") + 32 + len("-") + 16 + len("-")
_DECISIONS: Final = {"00": False, "01": True}
