"""`python -m lispfmc.cli` is the `lispfmc` command."""

from lispfmc.cli import main

if __name__ == "__main__":
    main()
