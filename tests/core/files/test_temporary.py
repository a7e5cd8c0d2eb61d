import fcntl
import os
import tempfile
import threading

from lit_core.files.temporary import temporary


def test_what_another_process_takes_for_left_is_created_again(tmp_path, monkeypatch):
    """The other one locks the first file before its writer does, and removes it a moment later."""
    make, removers = tempfile.mkstemp, []

    def made_and_taken(**options):
        number, name = make(**options)
        if not removers:
            taken = os.open(name, os.O_RDONLY)
            fcntl.flock(taken, fcntl.LOCK_EX)
            removers.append(threading.Timer(0.1, lambda: (os.unlink(name), os.close(taken))))
            removers[0].start()
        return number, name

    monkeypatch.setattr(tempfile, "mkstemp", made_and_taken)
    with temporary(tmp_path / "x") as path:
        removers[0].join()
        assert path.exists()
    assert not list(tmp_path.iterdir())
