"""`python -m antiphon.deploy` is `antiphon`. What stays, a coordinator or a participant, is started without the
libraries that the command line needs, so that it is ready soon and stays small.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line."""
    name, *arguments = sys.argv[1:] or [""]
    from .services.declared import SERVICES

    if service := SERVICES.get(name):
        from .services.running import options_of, run

        options = options_of(service, arguments)
        if options is not None:
            run(service, options)
            return
    from .cli.main import main as run_command

    run_command()


if __name__ == "__main__":
    main()
