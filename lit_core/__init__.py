"""What the LitShift packages share: the command line, data streams, corpora, loggers and checkpoints."""

__version__ = "0.1.0"
