"""``python -m lit_detect``."""

import sys

from lit_detect.cli import main

sys.exit(main())
