"""The gRPC service: questions become queries, answers messages, and what goes wrong a status with a sentence."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, TypeVar

import grpc
import grpc.aio
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from antiphon.contracts.errors import Ambiguous, PlatformError, Unusable

from . import storage_pb2 as api
from .encode import chunks
from .request import DEPTH_MAX, BadQuery, interval, query_of, short
from .sagas import Found, Sagas

SOURCE: Final = "antiphon"
"""Where the service graph comes from, as Jaeger is told."""
TRACE_ID_BYTES: Final = 16
REQUEST_BYTES_MAX: Final = 256 * 1024
QUESTIONS_MAX: Final = 16
"""How many are answered at once; whoever comes then is refused at once (RESOURCE_EXHAUSTED)."""

Context = grpc.aio.ServicerContext[Any, Any]
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


class Storage:
    """What the interface `jaeger.storage.v2` asks of a reader."""

    def __init__(self, sagas: Sagas) -> None:
        self._sagas = sagas

    async def get_traces(self, request: api.GetTracesRequest) -> AsyncIterator[TracesData]:
        """The traces with the given ids; unknown ones are left out."""
        if len(request.query) > DEPTH_MAX:
            raise BadQuery(f"{len(request.query)} traces are asked for; ask for at most {DEPTH_MAX} at once.")
        for each in request.query:
            if len(each.trace_id) != TRACE_ID_BYTES:
                raise BadQuery(f"a trace id of {len(each.trace_id)} bytes was given; it has {TRACE_ID_BYTES}.")
        for trace_id in dict.fromkeys(each.trace_id for each in request.query):
            found = await self._sagas.trace(trace_id)
            for chunk in chunks(found.spans if found else []):
                yield chunk

    async def find_traces(self, request: api.FindTracesRequest) -> AsyncIterator[TracesData]:
        """The traces of the newest sagas that match."""
        async for found in self._sagas.search(query_of(request.query)):
            for chunk in chunks(found.spans):
                yield chunk

    async def find_trace_ids(self, request: api.FindTraceIDsRequest) -> api.FindTraceIDsResponse:
        """Their ids only."""
        return api.FindTraceIDsResponse(
            trace_ids=[_found_id(found) async for found in self._sagas.search(query_of(request.query))]
        )

    async def get_services(self, request: api.GetServicesRequest) -> api.GetServicesResponse:
        """The participants that were seen, and `antiphon`."""
        return api.GetServicesResponse(services=sorted(await self._sagas.services()))

    async def get_operations(self, request: api.GetOperationsRequest) -> api.GetOperationsResponse:
        """The names of a service's spans, of one kind or of all."""
        if not request.service:
            raise BadQuery("operations are asked for without a service; name one.")
        service, wanted = short(request.service, "the service"), request.span_kind.lower()
        known = (await self._sagas.services()).get(service, ())
        return api.GetOperationsResponse(
            operations=[
                api.Operation(name=name, span_kind=kind) for name, kind in sorted(known) if wanted in ("", kind)
            ]
        )

    async def get_dependencies(self, request: api.GetDependenciesRequest) -> api.GetDependenciesResponse:
        """Which service called which, and how often, in the sagas that began within a time."""
        calls = await self._sagas.calls(*interval(request.start_time, request.end_time, "time"))
        return api.GetDependenciesResponse(
            dependencies=[
                api.Dependency(parent=parent, child=child, call_count=count, source=SOURCE)
                for (parent, child), count in sorted(calls.items())
            ]
        )


def _found_id(found: Found) -> api.FoundTraceID:
    return api.FoundTraceID(
        trace_id=bytes.fromhex(found.spans[0].trace_id),
        start=_timestamp(found.began_ns),
        end=_timestamp(found.ended_ns),
    )


def _timestamp(at_ns: int) -> Timestamp:
    seconds, nanos = divmod(at_ns, 1_000_000_000)
    return Timestamp(seconds=seconds, nanos=nanos)


# --- gRPC -------------------------------------------------------------------------------------------------------------


async def listen(sagas: Sagas, address: str) -> tuple[grpc.aio.Server, int]:
    """Begin to answer, and return the server with the port it listens on.

    Args:
        sagas: what is known.
        address: a host and a port; port 0 takes a free one.

    Raises:
        PlatformError: nobody can listen there.
    """
    server = grpc.aio.server(
        maximum_concurrent_rpcs=QUESTIONS_MAX,
        options=[
            ("grpc.max_receive_message_length", REQUEST_BYTES_MAX),
            ("grpc.so_reuseport", 0),  # or a second process would take every other question, unnoticed
        ],
    )
    server.add_generic_rpc_handlers(handlers(Storage(sagas)))
    try:
        port = server.add_insecure_port(address)
    except RuntimeError:
        raise PlatformError(
            f"nobody can listen on {address}: it is taken, or is not this machine's. Give another by --listen."
        ) from None
    await server.start()
    return server, port


def handlers(storage: Storage) -> list[grpc.GenericRpcHandler]:
    """The methods by the names that they are called by."""
    traces: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GetTraces": _streamed(storage.get_traces, api.GetTracesRequest),
        "FindTraces": _streamed(storage.find_traces, api.FindTracesRequest),
        "FindTraceIDs": _plain(storage.find_trace_ids, api.FindTraceIDsRequest),
        "GetServices": _plain(storage.get_services, api.GetServicesRequest),
        "GetOperations": _plain(storage.get_operations, api.GetOperationsRequest),
    }
    dependencies: dict[str, grpc.RpcMethodHandler[Any, Any]] = {
        "GetDependencies": _plain(storage.get_dependencies, api.GetDependenciesRequest)
    }
    return [
        grpc.method_handlers_generic_handler("jaeger.storage.v2.TraceReader", traces),
        grpc.method_handlers_generic_handler("jaeger.storage.v2.DependencyReader", dependencies),
    ]


def _plain(
    answer: Callable[[Request], Awaitable[Response]], request_type: type[Request]
) -> grpc.RpcMethodHandler[Request, Response]:
    async def call(request: Request, context: Context) -> Response:
        try:
            return await answer(request)
        except (BadQuery, Ambiguous, Unusable) as error:
            await context.abort(*_status(error))
            raise

    return grpc.unary_unary_rpc_method_handler(call, request_type.FromString, _bytes)


def _streamed(
    answer: Callable[[Request], AsyncIterator[Response]], request_type: type[Request]
) -> grpc.RpcMethodHandler[Request, Response]:
    async def call(request: Request, context: Context) -> AsyncIterator[Response]:
        try:
            async for message in answer(request):
                yield message
        except (BadQuery, Ambiguous, Unusable) as error:
            await context.abort(*_status(error))

    return grpc.unary_stream_rpc_method_handler(call, request_type.FromString, _bytes)


def _bytes(message: Message) -> bytes:
    return message.SerializeToString()


def _status(error: BadQuery | Ambiguous | Unusable) -> tuple[grpc.StatusCode, str]:
    """A code, and a sentence."""
    match error:
        case BadQuery():
            return grpc.StatusCode.INVALID_ARGUMENT, str(error)
        case Ambiguous():
            return grpc.StatusCode.UNAVAILABLE, f"the journals could not be read now: {error}. Ask again."
        case Unusable():
            return grpc.StatusCode.DATA_LOSS, f"the saga's journal cannot be read: {error}."
