"""`python -m lispfmc.cli` is the `lispfmc` command."""

from lispfmc.cli import main

main()
