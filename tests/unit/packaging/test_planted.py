"""The planted bugs of tests/planted fit what is shipped, and for each it is known which test notices it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.planted.patches import FOLDER, NotApplied, Patch, all_patches, apply, copy_sources, recorded


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    copy_sources(folder)
    return folder


@pytest.mark.parametrize("patch", all_patches(), ids=lambda patch: patch.name)
def test_a_planted_bug_fits_what_is_shipped(patch: Patch, sources: Path) -> None:
    apply(patch, sources, "--check")


def test_a_patch_that_does_not_fit_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotApplied, match=r"no-guard\.patch does not apply any more"):
        apply(Patch("no-guard"), tmp_path, "--check")


def test_each_planted_bug_says_what_a_user_would_suffer_and_who_notices_it() -> None:
    patches = all_patches()
    assert len(patches) >= 15
    assert [each.name for each in patches if len(each.says) < 80] == []
    assert sorted(recorded()) == [each.name for each in patches]


def test_the_readme_has_a_row_for_each_planted_bug_with_the_same_numbers() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| .+ \| (\w+): `(.+)` \| ([\d,]+) \|$", (FOLDER / "README.md").read_text(), re.M
    )
    said = {name: (layer, test, int(runs.replace(",", ""))) for name, layer, test, runs in rows}
    assert max(Counter(name for name, *_ in rows).values()) == 1
    assert said == {name: (each.layer, each.test.rpartition("::")[2], each.runs) for name, each in recorded().items()}
