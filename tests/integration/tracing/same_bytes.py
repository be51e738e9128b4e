"""Prints a hash over the OTLP bytes of some sagas; run twice, under different hash seeds, by a test."""

from __future__ import annotations

import hashlib
import sys

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from antiphon.tracing.export.readable_spans import readable
from antiphon.tracing.projection.project import project
from tests.integration.tracing.voyage import Voyage
from tests.support.logs import plain_logs


def main() -> None:
    """Live, project, encode."""
    plain_logs(sys.stderr)
    found = hashlib.sha256()
    for seed in range(5):
        voyage = Voyage(seed, trouble=0.2).live()
        for key in voyage.sagas():
            spans = project(key, voyage.entries(key), voyage.events(key)).spans
            found.update(encode_spans([readable(span) for span in spans]).SerializeToString(deterministic=True))
    sys.stdout.write(found.hexdigest())


if __name__ == "__main__":
    main()
