"""The travel agency: its sagas, its data, its services in memory, and the reconciliation of their ledgers."""
