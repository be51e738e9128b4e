"""A saga whose journal is about as long as one gets by itself: as many elements as may be, of which some fail once."""

from __future__ import annotations

import io
from functools import cache

from rich.console import Console

from antiphon.contracts import SagaKey, subjects
from antiphon.contracts.messages import AnswerKind
from antiphon.deploy.cli.trace import draw
from antiphon.tracing.projection.project import Projection
from tests.integration.tracing.test_examples import Scripted
from tests.integration.tracing.voyage import Voyage
from tests.support.trip import ASKED

CARAVAN = SagaKey.of("caravan", "c1")


@cache
def lived() -> Voyage:
    """A voyage, and a caravan beside it, in memory."""
    script: dict[tuple[str, str, int], list[AnswerKind]] = {
        ("charge_card", "do", 1): ["refused"],
        ("cross", "do", 1): ["refused"],
    }
    for number in range(45):
        script[f"load_all-{number}", "undo", 1] = ["exhausted"]
    voyage = Scripted(script).live()
    voyage.put(subjects.start_subject(CARAVAN), "client", ASKED.__contract__.type, ASKED)
    voyage.platform.run(600)
    return voyage


def drawn(projection: Projection) -> str:
    """The picture of a trace as a wide terminal shows it."""
    out = Console(file=io.StringIO(), width=150)
    draw(out, projection, with_sends=False, jaeger_url="")
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()
