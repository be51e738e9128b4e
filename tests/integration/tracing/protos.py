"""Makes the Python of our .proto: `python -m tests.integration.tracing.protos` writes it into the tree."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from opentelemetry.proto.trace.v1 import trace_pb2

from tests.unit.packaging.project import ROOT

SOURCES: Final = ROOT / "tracing"
PROTO: Final = SOURCES / "antiphon/tracing/jaeger/storage.proto"
MADE: Final = ("storage_pb2.py", "storage_pb2.pyi")


def generate(folder: Path) -> None:
    """Write the modules below a folder, at the place that their package has there.

    OTLP's messages come from the installed package, which brings their descriptors and no .proto.
    """
    known = folder / "known.binpb"
    known.write_bytes(FileDescriptorSet(file=_files(trace_pb2.DESCRIPTOR)).SerializeToString())
    options = [f"--proto_path={SOURCES}", f"--descriptor_set_in={known}", f"--python_out={folder}"]
    command = [sys.executable, "-m", "grpc_tools.protoc", *options, f"--pyi_out={folder}", str(PROTO)]
    try:
        subprocess.run(command, check=True)
    finally:
        known.unlink()


def _files(descriptor: FileDescriptor) -> list[FileDescriptorProto]:
    """A file's description behind those of all that it imports."""
    found: dict[str, FileDescriptorProto] = {}

    def take(file: FileDescriptor) -> None:
        for each in file.dependencies:
            take(each)
        found[file.name] = FileDescriptorProto.FromString(file.serialized_pb)

    take(descriptor)
    return list(found.values())


if __name__ == "__main__":
    generate(SOURCES)
