"""Traces on their way out: to a backend over OTLP, and into files."""
