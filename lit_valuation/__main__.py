"""``python -m lit_valuation``."""

import sys

from lit_valuation.cli import main

if __name__ == "__main__":  # and not where a class path names this module
    sys.exit(main())
