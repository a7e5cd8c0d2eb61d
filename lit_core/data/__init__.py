"""Shards on disk, token windows, and streams whose whole state is how many samples were consumed."""

from typing import TYPE_CHECKING

from lit_core.lazy import exports

if TYPE_CHECKING:
    from lit_core.data.loader import StreamLoader
    from lit_core.data.mixture import MixtureStream
    from lit_core.data.resume import ResumeStream
    from lit_core.data.shards import ShardSet, write_index, write_shard
    from lit_core.data.stream import EvalStream, ShardStream, Stream
    from lit_core.data.tokens import TokenWindows
    from lit_core.lightning.evaluation import named_loader

__all__ = [
    "EvalStream",
    "MixtureStream",
    "ResumeStream",
    "ShardSet",
    "ShardStream",
    "Stream",
    "StreamLoader",
    "TokenWindows",
    "named_loader",
    "write_index",
    "write_shard",
]
__getattr__, __dir__ = exports(__name__)
