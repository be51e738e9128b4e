"""`python -m antiphon.deploy` is `antiphon`, for children that must run in the same environment as their parent."""

from .cli.main import main

main()
