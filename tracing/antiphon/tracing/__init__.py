"""Logs that say which saga they are about. Traces, computed from journals, will live here."""
