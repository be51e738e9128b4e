"""Nothing in the project depends on where packages come from or on the machine it was written on."""

import pytest

from tests.unit.packaging.project import ROOT, files

# In parts, so that this file does not name what it forbids.
REGISTRIES = [
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pythonhosted", "org"),
        ("registry", "npmjs", "org"),
        ("registry", "yarnpkg", "com"),
        ("conda", "anaconda", "org"),
        ("proxy", "golang", "org"),
        ("index", "crates", "io"),
    )
]


# A checkout in a folder such as /app tells nothing about a machine, and a Dockerfile may well name it.
MACHINE = [str(ROOT)] if len(ROOT.parts) > 2 else []


@pytest.mark.parametrize("forbidden", [*REGISTRIES, *MACHINE])
def test_no_file_names_a_package_registry_or_a_folder_of_this_machine(forbidden: str) -> None:
    assert [path.relative_to(ROOT) for path in files() if forbidden.encode() in path.read_bytes()] == []
