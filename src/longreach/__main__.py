"""`python -m longreach` is `longreach`."""

from longreach.cli.main import main

main()
