"""``python -m lit_valuation``."""

import sys

from lit_valuation.cli import main

sys.exit(main())
