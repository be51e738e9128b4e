"""The commands of `antiphon`."""
