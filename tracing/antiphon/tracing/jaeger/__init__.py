"""Jaeger without an exporter: its remote storage, read-only, over the journals. Needs the extra `jaeger`."""
