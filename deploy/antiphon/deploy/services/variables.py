"""Which ANTIPHON_ variables there are, and which of an environment's nobody reads: misspelt, they would be passed over
without a word."""

from __future__ import annotations

import re
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Final

from .declared import SERVICES
from .settings import FILE_SUFFIX

PREFIX: Final = "ANTIPHON_"

OTHERS: Final = frozenset(
    {
        "ANTIPHON_FAULTS",
        "ANTIPHON_JAEGER_URL",
        "ANTIPHON_KILL_AT",
        "ANTIPHON_PROGRAM_VERSION",
        "ANTIPHON_PUBLIC_CLIENT",
        "ANTIPHON_STREAMS",
        "ANTIPHON_TRIPS_PARTNERS",
    }
)
"""Those that are read elsewhere than by the settings of processes."""

OF_TESTS: Final = frozenset(
    {
        "ANTIPHON_BASKETS",
        "ANTIPHON_BENCH_PROFILE",
        "ANTIPHON_BENCH_SLOW_FOLDER",
        "ANTIPHON_BENCH_SLOW_MS",
        "ANTIPHON_EXPECT_WHEEL",
        "ANTIPHON_REQUIRE_JAVASCRIPT",
        "ANTIPHON_REQUIRE_PEER",
        "ANTIPHON_REQUIRE_POSTGRES",
        "ANTIPHON_REWRITE",
        "ANTIPHON_STORMS",
        "ANTIPHON_TEST_CARELESS_LEDGER",
        "ANTIPHON_TEST_GATE",
        "ANTIPHON_TEST_RELEASE",
        "ANTIPHON_TEST_SERVER",
        "ANTIPHON_TEST_SERVER_TOO_OLD",
        "ANTIPHON_WALKS",
    }
)
"""Those that tests and benchmarks read; the processes that they start inherit them."""

LINK: Final = re.compile(r"ANTIPHON_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)")
"""What Kubernetes gives each container of a namespace for each service there that is called antiphon, or antiphon-…;
the older links of Docker are alike."""
ADDRESS: Final = re.compile(r"(tcp|udp|sctp)://.*")
"""What stands in `ANTIPHON_…_PORT`, where it is such a link."""


def known_variables() -> frozenset[str]:
    """All that something reads."""
    settings = [setting for service in SERVICES.values() for setting in service.settings]
    files = {setting.variable + FILE_SUFFIX for setting in settings if setting.is_secret}
    return frozenset({setting.variable for setting in settings} | files | OTHERS | OF_TESTS)


def unknown_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """The ANTIPHON_ variables that nothing reads, and for each a sentence that says what may have been meant."""
    known = known_variables()
    found = {
        name
        for name, value in environment.items()
        if name.upper().startswith(PREFIX) and name not in known and not _is_link(name, value)
    }
    return {name: _sentence(name, known - OF_TESTS) for name in sorted(found)}


def _is_link(name: str, value: str) -> bool:
    """Whether the platform of containers has set it, to say where a service is."""
    if LINK.fullmatch(name):
        return True
    return name.endswith("_PORT") and ADDRESS.fullmatch(value) is not None


def _sentence(name: str, known: frozenset[str]) -> str:
    near = get_close_matches(name.upper(), sorted(known), n=1)
    hint = f"did you mean {near[0]}?" if near else "antiphon settings lists those that there are."
    return f"{name} is set, and is no variable of Antiphon; {hint}"
