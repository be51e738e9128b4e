"""Which sagas are traced from their start on: a hash decides, so that every process decides alike. Pure.

What is left out is exported all the same at its end if it turned out to be worth looking at; see `export.py`.
"""

from __future__ import annotations

import os
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
    return int.from_bytes(trace_id[8:16]) < ratio * 2**64


RATIO: Final = ratio_of(os.environ)
"""The share of this process. Give coordinators and exporters the same."""


def sampled_flag(trace_id: bytes) -> str:
    """The flags of a traceparent."""
    return "01" if RATIO >= 1 or is_sampled(trace_id, RATIO) else "00"
