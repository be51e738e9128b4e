"""The wheel holds Antiphon, all of it, and nothing that could get in the way of the project it is installed for."""

from pathlib import Path, PurePosixPath
from zipfile import ZipFile

import pytest

from tests.support.wheel import build, install, run, site_packages
from tests.unit.packaging.project import NAMESPACES, ROOT, files, packages

# A team's own service, with names of its own that a distribution of bare top-level packages would fight over.
SERVICE = {
    "contracts/__init__.py": "OWNER = 'service'\n",
    "tracing.py": "OWNER = 'service'\n",
    "coordinator.py": "OWNER = 'service'\n",
    "tests/__init__.py": "OWNER = 'service'\n",
    "main.py": """\
import importlib
import sys

import contracts, coordinator, tests, tracing

assert {module.OWNER for module in (contracts, coordinator, tests, tracing)} == {"service"}
for name in sys.argv[1:]:
    print(importlib.import_module(name).__file__)
""",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(ROOT, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("environment")
    install(wheel, folder)
    return folder


def test_the_wheel_holds_every_file_of_every_source_root_and_nothing_else(wheel: Path) -> None:
    shipped = {
        PurePosixPath("antiphon", path.relative_to(namespace).as_posix())
        for namespace in NAMESPACES
        for path in files()
        if path.is_relative_to(namespace)
    }
    contents = {PurePosixPath(name) for name in ZipFile(wheel).namelist()}
    described = {path for path in contents if path.parts[0].endswith(".dist-info")}
    assert contents - described == shipped


def test_an_installed_antiphon_leaves_a_project_its_own_names(environment: Path, tmp_path: Path) -> None:
    for name, text in SERVICE.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    names = [f"antiphon.{package.name}" for package in packages()]
    imported = run(str(environment / "bin" / "python"), "main.py", *names, cwd=tmp_path).split()
    expected = site_packages(environment) / "antiphon"
    assert imported == [str(expected / package.name / "__init__.py") for package in packages()]


def test_the_wheel_brings_the_command(environment: Path, tmp_path: Path) -> None:
    assert "antiphon" in run(str(environment / "bin" / "antiphon"), "--help", cwd=tmp_path)
