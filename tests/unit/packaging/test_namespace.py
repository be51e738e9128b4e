"""`antiphon` is a namespace that several source roots share, and every package in it is typed."""

import os
import sysconfig
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.unit.packaging.project import NAMESPACES, ROOT, SOURCE_ROOTS, packages, settings


@pytest.mark.parametrize("namespace", NAMESPACES, ids=SOURCE_ROOTS)
def test_no_source_root_claims_the_namespace_for_itself(namespace: Path) -> None:
    assert namespace.is_dir()
    assert not (namespace / "__init__.py").exists(), "this file would hide the packages of every other source root"


def test_every_folder_of_the_namespace_is_a_typed_package() -> None:
    folders = {folder for namespace in NAMESPACES for folder in namespace.iterdir() if folder.name != "__pycache__"}
    assert folders == set(packages())
    assert [folder for folder in packages() if not (folder / "py.typed").is_file()] == []


def test_the_settings_of_every_tool_name_the_same_source_roots() -> None:
    tool = settings()["tool"]
    roots = list(SOURCE_ROOTS)
    build = tool["hatch"]["build"]
    assert build["dev-mode-dirs"] == roots
    assert build["targets"]["wheel"]["sources"] == roots
    assert build["targets"]["wheel"]["only-include"] == [f"{root}/antiphon" for root in roots]
    assert tool["mypy"]["mypy_path"] == [*roots, "."]
    assert tool["pyright"]["include"] == tool["mypy"]["files"] == [*roots, "tests"]
    assert tool["importlinter"]["root_packages"] == sorted(f"antiphon.{package.name}" for package in packages())


def test_the_tests_exercise_the_copy_that_will_be_shipped() -> None:
    """CI says that it installed a wheel; everywhere else the tree itself is what is tested."""
    wheel_expected = os.environ.get("ANTIPHON_EXPECT_WHEEL") == "1"
    expected = Path(sysconfig.get_path("purelib")) if wheel_expected else ROOT
    for package in packages():
        spec = find_spec(f"antiphon.{package.name}")
        assert spec is not None
        assert spec.origin is not None
        origin = Path(spec.origin)
        assert origin.is_relative_to(expected)
        assert wheel_expected == ("site-packages" in origin.parts)
