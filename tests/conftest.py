"""What every test run shares: a line that says which Antiphon is tested, plain logs, and one PostgreSQL."""

import os
from collections.abc import Iterator
from importlib.util import find_spec

import pytest

from tests.support.logs import plain_logs
from tests.support.postgres import REQUIRED, Postgres, postgres

# Servers are started by a fork, and gRPC's own handlers in the child may end it before it becomes the server. Only in
# tests does one process both speak gRPC and start servers.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

plain_logs()


def pytest_report_header() -> str:
    """Names the folders that hold `antiphon`: the source roots in development, site-packages in CI."""
    namespace = find_spec("antiphon")
    folders = list(namespace.submodule_search_locations or []) if namespace else []
    return f"antiphon: {', '.join(folders) or 'not installed'}"


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """One PostgreSQL for all tests; they are skipped where there is none, unless it must be there."""
    try:
        with postgres() as server:
            yield server
    except LookupError as error:
        if os.environ.get(REQUIRED) == "1":
            raise
        pytest.skip(str(error))
