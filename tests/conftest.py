"""What every test run shares: a line that says which Antiphon is tested, plain logs, and one PostgreSQL."""

import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from typing import Final

import pytest
from hypothesis import settings

from antiphon.deploy.local import server
from antiphon.deploy.local.postgres import REQUIRED, Postgres, postgres
from tests.support.logs import plain_logs

# Servers are started by a fork, and gRPC's own handlers in the child may end it before it becomes the server. Only in
# tests does one process both speak gRPC and start servers.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

if path := os.environ.get("ANTIPHON_TEST_SERVER"):  # make oldest
    found: Final = path
    server.find_binary = lambda: found

plain_logs()

# A shell starts its background jobs deaf to Ctrl-C, and the processes of the tests would inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes says more of the machine than of the code.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


LONGEST: Final = (
    "unit/decide/test_room",
    "integration/participants/test_killed",
    "integration/platform/test_elections",
    "integration/platform/test_operators",
    "integration/platform/test_retention",
    "integration/participants/test_raising",
    "integration/participants/test_killer",
    "integration/order/test_services",
    "integration/participants/test_given_up",
    "conformance/traces/test_traces",
    "integration/participants/test_serve",
    "chaos/test_kills",
    "chaos/test_settlement",
    "processes/test_fitness",
    "chaos/test_lists",
    "processes/test_command_line",
    "planted/test_planted",
    "simulation/test_exploration",
    "bench/databases/test_databases",
    "processes/test_new",
    "processes/test_up",
    "processes/test_exporter",
    "processes/test_readmodel",
    "upgrade/test_upgrade",
    "simulation/inbox/test_states",
    "chaos/test_cluster",
    "chaos/test_reactions",
    "chaos/test_trips",
    "bench/test_bench",
    "chaos/test_choreographed",
)
"""Files that take longest, which a worker gets whole: they begin, and the short ones fill what is left at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all others stay as they are."""
    ranks = {f"tests/{name}.py": rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.nodeid.partition("::")[0], len(ranks)))


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
