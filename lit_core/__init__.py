"""What the LitShift packages share: the command line, data streams, corpora, loggers and checkpoints."""

import sys

__version__ = "0.1.0"

if sys.platform == "win32":  # locks of files, forks and signals
    raise ImportError("LitShift runs on Linux and macOS; on Windows, use it in WSL.")
