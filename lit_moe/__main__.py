"""``python -m lit_moe``."""

import sys

from lit_moe.cli import main

sys.exit(main())
