"""The trace of a saga as a function of its journal. Pure."""
