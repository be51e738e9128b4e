"""What the targets of the Makefile run, as `make -n` says it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from tests.unit.packaging.project import ROOT

MAKE = shutil.which("make")


@pytest.mark.skipif(MAKE is None, reason="there is no make here")
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["STYLE=choreographed"], "--style choreographed --without fail --without raise --without hang"),
        (["STYLE=hybrid"], "--style hybrid"),
        (["STYLE=orchestrated"], "--style orchestrated"),
        (["SYSTEM=trips"], "--load antiphon.deploy.chaos.trips:Trips"),
    ],
)
def test_a_storm_of_any_system_goes_on_for_so_many_minutes(words: list[str], said: str) -> None:
    assert MAKE is not None
    for minutes, ran in ((["MINUTES=30"], True), ([], False)):
        told = subprocess.run(
            [MAKE, "-n", "chaos", *words, *minutes], cwd=ROOT, capture_output=True, text=True, check=True
        ).stdout
        assert said in told
        assert ("--minutes 30" in told) is ran
