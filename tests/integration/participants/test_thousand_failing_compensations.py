"""A thousand compensations that keep failing leave the same participant's commands alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from .crowd import FAILING, HEALTHY, crowd


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
async def test_a_thousand_failing_compensations_do_not_hold_up_healthy_commands(kind: str, tmp_path: Path) -> None:
    """Counted, not timed: while a command is under way no more of them are tried than a small part of the crowd."""
    async with crowd(tmp_path, kind) as waiting:
        overtaken = sorted([(await waiting.answered()).compensations for _ in range(HEALTHY)])
        await waiting.until_more_fail()
        assert overtaken[HEALTHY // 2] < FAILING / 20, overtaken[:: HEALTHY // 10]
        assert overtaken[-1] < FAILING, overtaken[:: HEALTHY // 10]
