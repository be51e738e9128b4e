"""What programs and operators ask of sagas: start, signal, cancel, wait, retry, pause."""
