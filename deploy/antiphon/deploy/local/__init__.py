"""The platform on one machine: a server, its children, the demo."""
