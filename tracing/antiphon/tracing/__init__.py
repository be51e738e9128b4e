"""What can be seen of a saga: its trace, computed from its journal, and logs."""
