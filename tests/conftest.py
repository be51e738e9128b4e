"""What every test run shares: a line that says which Antiphon is being tested."""

from importlib.util import find_spec


def pytest_report_header() -> str:
    """Names the folders that hold `antiphon`: the source roots in development, site-packages in CI."""
    namespace = find_spec("antiphon")
    folders = list(namespace.submodule_search_locations or []) if namespace else []
    return f"antiphon: {', '.join(folders) or 'not installed'}"
