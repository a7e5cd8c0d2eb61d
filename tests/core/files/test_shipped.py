import hashlib
import lzma

import pytest

from lit_core.errors import RunFailure
from lit_core.files.shipped import read_shipped

TEXT = "chapter one\n"
SHA256 = hashlib.sha256(TEXT.encode()).hexdigest()


def test_a_shipped_file_is_read_or_refused_in_one_sentence(tmp_path):
    path = tmp_path / "text.xz"
    with pytest.raises(RunFailure, match=r"text\.xz cannot be read .*install the package again"):
        read_shipped(path, SHA256)
    path.write_bytes(lzma.compress(TEXT.encode()))
    assert read_shipped(path, SHA256) == TEXT
    path.write_bytes(lzma.compress(TEXT.upper().encode()))
    with pytest.raises(RunFailure, match=r"text\.xz is damaged.*install the package again"):
        read_shipped(path, SHA256)
    path.write_bytes(b"torn")
    with pytest.raises(RunFailure, match=r"text\.xz cannot be read"):
        read_shipped(path, SHA256)
