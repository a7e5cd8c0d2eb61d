"""``python -m lit_moe``."""

import sys

from lit_moe.cli import main

if __name__ == "__main__":  # and not where a class path names this module
    sys.exit(main())
