"""`python -m llmos` is the command `llmos`."""

import sys

from llmos.cli import main

if __name__ == "__main__":
    sys.exit(main())
