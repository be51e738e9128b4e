"""Each planted bug is noticed by the test that is known to notice it, and by nothing but the bug."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.planted.patches import Patch, apply, copy_sources, recorded, run_tests

CAUGHT = recorded()


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    copy_sources(tmp_path)
    return tmp_path


def test_without_a_planted_bug_all_these_tests_pass(sources: Path) -> None:
    ran = run_tests(sources, "-v", *sorted({each.test for each in CAUGHT.values()}))
    assert ran.returncode == pytest.ExitCode.OK, ran.stdout + ran.stderr
    assert f"antiphon: {sources}" in ran.stdout, "the tests ran against something else"


@pytest.mark.parametrize("name", sorted(CAUGHT))
def test_a_planted_bug_is_noticed(name: str, sources: Path) -> None:
    apply(Patch(name), sources)
    ran = run_tests(sources, CAUGHT[name].test)
    if ran.returncode == pytest.ExitCode.OK and "1 skipped" in ran.stdout:
        pytest.skip("what its test needs is not on this machine")
    assert ran.returncode == pytest.ExitCode.TESTS_FAILED, ran.stdout + ran.stderr
