"""`python -m keyrotd`: the command, for whoever has no script of that name on PATH."""

from keyrotd.cli.main import main

main()
