"""What is generated is what the .proto says, and the service answers to what it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest

from antiphon.tracing.jaeger import storage_pb2
from antiphon.tracing.jaeger.sagas import Sagas
from antiphon.tracing.jaeger.service import Storage, handlers
from tests.integration.tracing.protos import MADE, PROTO, generate


@pytest.mark.parametrize("name", MADE)
def test_what_is_committed_is_what_the_proto_makes(name: str, tmp_path: Path) -> None:
    generate(tmp_path)
    made = (tmp_path / "antiphon/tracing/jaeger" / name).read_text()
    assert made == PROTO.with_name(name).read_text(), "python -m tests.integration.tracing.protos makes it anew"


def test_every_method_of_the_interface_is_answered_in_its_form() -> None:
    answered = dict[str, Any]()
    for handler in handlers(Storage(cast(Sagas, None))):
        answered |= cast("dict[str, Any]", cast(Any, handler)._method_handlers)
    wanted = {
        f"/{service.full_name}/{method.name}": method
        for service in storage_pb2.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    }
    assert answered.keys() == wanted.keys()
    for name, method in wanted.items():
        assert answered[name].response_streaming == method.server_streaming
        assert answered[name].request_deserializer.__self__.DESCRIPTOR is method.input_type
