"""``python -m lit_detect``."""

import sys

from lit_detect.cli import main

if __name__ == "__main__":  # and not where a class path names this module
    sys.exit(main())
