"""Two exporters make the same bytes, and anybody can compute the ids."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys

import pytest

from antiphon.contracts import SagaKey
from antiphon.contracts.errors import PlatformError
from antiphon.tracing.projection.ids import span_id, trace_id, traceparent
from antiphon.tracing.projection.sampling import is_sampled, ratio_of
from tests.unit.packaging.project import ROOT

KEY = SagaKey.of("order", "order-0001")


def test_two_processes_make_the_same_bytes() -> None:
    hashes = {printed_hash(seed) for seed in ("1", "2")}
    assert len(hashes) == 1


def printed_hash(seed: str) -> bytes:
    command = [sys.executable, "-m", "tests.integration.tracing.same_bytes"]
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    assert len(run.stdout) == 64
    return run.stdout


def test_ids_are_hashes_that_any_language_can_compute() -> None:
    assert trace_id(KEY) == hashlib.sha256(b"order/order-0001").hexdigest()[:32] == "01041cbdb73dbbfcc5d1dbcbaee0f04e"
    attempt = hashlib.sha256(b"order/order-0001/reserve_inventory/do/1/attempt").hexdigest()[:16]
    assert span_id(KEY, "reserve_inventory", "do", 1, "attempt") == attempt
    assert traceparent(KEY, "reserve_inventory", "do", 1) == f"00-{trace_id(KEY)}-{attempt}-01"


def test_sampling_goes_by_the_trace_id_and_so_is_the_same_everywhere() -> None:
    ids = [bytes.fromhex(trace_id(SagaKey.of("order", str(number)))) for number in range(4000)]
    chosen = {number for number, each in enumerate(ids) if is_sampled(each, 0.25)}
    assert 900 < len(chosen) < 1100
    assert chosen < {number for number, each in enumerate(ids) if is_sampled(each, 0.5)}
    assert all(is_sampled(each, 1.0) and not is_sampled(each, 0.0) for each in ids)


@pytest.mark.parametrize(
    ("environment", "ratio"),
    [
        ({}, 1.0),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, 0.0),
        ({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.1"}, 0.1),
    ],
)
def test_the_standard_variables_say_how_many_are_traced(environment: dict[str, str], ratio: float) -> None:
    assert ratio_of(environment) == ratio


@pytest.mark.parametrize(
    "environment",
    [
        {"OTEL_TRACES_SAMPLER": "jaeger_remote"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "half"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "nan"},
    ],
)
def test_what_they_say_in_vain_is_an_error(environment: dict[str, str]) -> None:
    with pytest.raises(PlatformError):
        ratio_of(environment)
