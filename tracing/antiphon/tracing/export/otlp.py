"""The way to the backend: the OpenTelemetry SDK's OTLP exporter, set up by the standard OTEL_* variables.

For a saga's spans never with a span processor between: one that gathers spans loses them with its process.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from antiphon.contracts.errors import PlatformError

from ..projection.spans import Span

if TYPE_CHECKING:
    import requests
    from opentelemetry.sdk.trace.export import SpanExporter

SDK_LOGGER: Final = "opentelemetry.exporter.otlp"

AWAY: Final = frozenset({"408", "429", "502", "503", "504"}) | {
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "RESOURCE_EXHAUSTED",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNAVAILABLE",
    "DATA_LOSS",
}
"""What a backend answers that will take the same spans later (OTLP 1.9: retryable status codes, HTTP's and gRPC's)."""

ABOUT_SPANS: Final = frozenset({"400", "413", "422", "INVALID_ARGUMENT"})
"""What it answers to spans that it cannot take, where it may well take others."""

BODY_CHARS_MAX: Final = 300
"""How much of an answer, or of an error, is quoted."""


@dataclass(frozen=True)
class Failure:
    """Why the backend did not take some spans.

    `status` is the code of its answer, empty where there was none; `body` is how the answer begins. `is_ours` says that
    there was no request, because making it raised.
    """

    reason: str
    status: str = ""
    body: str = ""
    is_ours: bool = False

    @property
    def is_rejection(self) -> bool:
        """Whether the same request has no better prospects later: somebody must do something."""
        return self.is_ours or (bool(self.status) and self.status not in AWAY)

    @property
    def is_about_spans(self) -> bool:
        """Whether other spans may be taken."""
        return self.is_ours or self.status in ABOUT_SPANS


class Backend:
    """An OTLP endpoint.

    Raises:
        PlatformError: what the environment names is no endpoint, or a package is missing.
    """

    def __init__(self) -> None:
        self.endpoint = endpoint(os.environ)
        self._failure: Failure | None = None
        self._heard = _Heard()
        self._exporter = span_exporter(os.environ, self._heard)
        self._is_closed = False
        from opentelemetry.sdk.trace.export import SpanExportResult

        from .readable_spans import readable

        self._readable, self._success = readable, SpanExportResult.SUCCESS

    @property
    def failure(self) -> Failure | None:
        """Why the backend did not take what was sent last, also while the SDK tries that again; None if it did."""
        return self._heard.failure or self._failure

    async def send(self, spans: Sequence[Span]) -> bool:
        """Hand spans over, in a thread of their own, since that waits; true once the backend has them."""
        return await asyncio.to_thread(self._export, spans)

    def close(self) -> None:
        """Give up what is being sent, and send no more."""
        if not self._is_closed:
            self._is_closed = True
            self._exporter.shutdown()

    def _export(self, spans: Sequence[Span]) -> bool:
        if self._is_closed:
            return False
        self._heard.forget()
        is_taken = self._exporter.export([self._readable(span) for span in spans]) is self._success
        # The SDK takes a redirect for success, and follows none.
        failure = self._heard.failure
        if is_taken and not (failure and failure.status.startswith("3")):
            self._failure = None
            self._heard.forget()
        else:  # the SDK says the same once in a while only, so what it said before still holds
            self._failure = failure or self._failure or Failure("the SDK gave no reason")
        return self._failure is None


class _Heard(logging.Handler):
    """What went wrong with the last request, by what the SDK logs of it, or HTTP's answer to it.

    The exporter says all of that itself, with the endpoint; so the SDK's lines end here.
    """

    def __init__(self) -> None:
        super().__init__()
        self.failure: Failure | None = None
        logger = logging.getLogger(SDK_LOGGER)
        logger.handlers, logger.propagate = [self], False

    def forget(self) -> None:
        """Begin anew, with the next request."""
        self.failure = None

    def emit(self, record: logging.LogRecord) -> None:
        """Note a line of the SDK, unless more is known."""
        values: Any = record.args or ()
        status = next((each.name for each in values if hasattr(each, "name")), "")  # gRPC's, of an enumeration
        if status or self.failure is None:
            self.failure = Failure(record.getMessage(), status)

    def answered(self, response: requests.Response, **_: Any) -> None:
        """Note what a backend answered over HTTP."""
        status = str(response.status_code)
        where = f" to {target}" if (target := response.headers.get("Location")) else ""
        body = response.text[:BODY_CHARS_MAX]
        is_taken = response.status_code < 300
        self.failure = None if is_taken else Failure(f"HTTP {status} {response.reason}{where}", status, body)

    def failed(self, error: Exception) -> None:
        """Note that there was no answer."""
        cause = getattr(error.args[0], "reason", error) if error.args else error
        self.failure = Failure(str(cause)[:BODY_CHARS_MAX] or type(error).__name__)


def endpoint(environment: Mapping[str, str]) -> str:
    """Where spans go, as the standard variables say; a collector on this machine by default.

    Raises:
        PlatformError: that is no endpoint.
    """
    is_grpc = protocol(environment) == "grpc"
    own, general = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"
    variable = own if environment.get(own) else general
    given = environment.get(variable) or f"http://localhost:{4317 if is_grpc else 4318}"
    if not _is_endpoint(given, is_grpc):
        raise PlatformError(
            f"{variable}={given} is no endpoint of OTLP. Give a URL with http:// or https://, such as "
            f"http://localhost:{4317 if is_grpc else 4318}."
        )
    return given if is_grpc or variable == own else f"{given.removesuffix('/')}/v1/traces"


def _is_endpoint(text: str, is_grpc: bool) -> bool:
    is_bare = is_grpc and "://" not in text  # gRPC takes host:port too
    try:
        found = urlsplit(f"//{text}" if is_bare else text)
        port = found.port
    except ValueError:
        return False
    return bool(found.hostname) and (port is not None if is_bare else found.scheme in ("http", "https"))


def protocol(environment: Mapping[str, str]) -> str:
    """What spans are sent by, as the standard variables say."""
    general = environment.get("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
    return environment.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", general)


def span_exporter(environment: Mapping[str, str], heard: _Heard | None = None) -> SpanExporter:
    """The SDK's exporter for the protocol and the endpoint that the environment names.

    Raises:
        PlatformError: it names none that there is, or a package is not installed.
    """
    chosen = protocol(environment)
    try:
        match chosen:
            case "http/protobuf":
                from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

                return OTLPSpanExporter(endpoint=endpoint(environment), session=_session(environment, heard))
            case "grpc":
                # Its core writes lines of its own to stderr, among those that are JSON.
                os.environ.setdefault("GRPC_VERBOSITY", "NONE")
                from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter

                return GrpcExporter(endpoint=endpoint(environment))
            case _:
                raise PlatformError(f"OTEL_EXPORTER_OTLP_PROTOCOL={chosen}: give http/protobuf or grpc.")
    except ImportError:
        extra = "otlp-grpc" if chosen == "grpc" else "otlp"
        raise PlatformError(f"traces cannot be exported without antiphon[{extra}]; install it.") from None


def _session(environment: Mapping[str, str], heard: _Heard | None) -> requests.Session | None:
    """A session whose answers are heard; None where the SDK is told to make one that knows credentials."""
    if heard is None or any("CREDENTIAL_PROVIDER" in name for name in environment if name.startswith("OTEL_PYTHON_")):
        return None
    import requests

    listener = heard

    class Heard(requests.Session):
        def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
            try:
                return super().send(request, **options)
            except Exception as error:
                listener.failed(error)
                raise

    session = Heard()
    session.hooks["response"].append(heard.answered)
    return session
