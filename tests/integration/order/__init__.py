"""The order system: its data, its services one by one, and the reconciliation of their ledgers."""
