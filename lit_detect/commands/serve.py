"""The verb ``serve``: a page on this machine where somebody pastes a text and sees what a detector finds."""

from __future__ import annotations

import errno
import ipaddress
import socket

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError, checked_first, require
from lit_core.screen import say

_NEEDED = ("starlette>=0.49.1", "uvicorn>=0.30", "python-multipart>=0.0.20")


def _check(port: int) -> None:
    require(0 <= port < 1 << 16, "port", port, "from 0 to 65535")


@checked_first(_check)
def serve(
    detector: str = "default",
    calibration: str | None = None,
    group: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8765,
) -> None:
    """Serve a page to paste or drop a text, and see what a detector finds in it.

    Only this machine reaches it, unless another host is named. Texts are neither stored nor logged. ``POST /judge``
    takes ``{"texts": ["…"]}`` and returns a judgement for each. Ctrl-C ends it.

    Args:
        detector: Name of the detector: default, the name of a shipped detector that needs no training, a checkpoint of
            ``lit-detect fit``, or the name or folder of a Hugging Face classifier.
        calibration: File of ``lit-detect calibrate`` by which it decides; null takes the detector's own threshold.
        group: Group of all texts, where the calibration is by group; null for none.
        host: Name or address to listen at; 0.0.0.0 lets every machine of the network send texts, unencrypted and
            without a password.
        port: Port to listen at, from 0 to 65535; 0 takes a free one.

    Raises:
        UserError: If the web framework is missing, the port is in use, or the detector or its calibration is refused.
    """
    _check(port)
    for needed in _NEEDED:
        if not RequirementCache(needed):
            name = needed.partition(">")[0]
            raise UserError(f'lit-detect serve needs `{name}`; install it with `pip install "lit-shift[serve]"`.')
    with _listening(host, port) as listening:
        import uvicorn

        from lit_detect.loading import load
        from lit_detect.pages.server import application

        address, bound = listening.getsockname()[:2]
        is_loopback = ipaddress.ip_address(address).is_loopback
        app = application(load(detector, calibration), is_loopback, group or "")
        config = uvicorn.Config(
            app,
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=0,
        )
        shown = f"[{address}]" if ":" in address else address
        say(f"Serving      http://{shown}:{bound}/", "Ctrl-C ends it. Texts are neither stored nor logged.")
        if not is_loopback:
            say("Every machine that reaches this address can send texts; they travel unencrypted.")
        uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Raises:
        UserError: If the port is in use, or there is no such host here.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except PermissionError as error:
        raise UserError(f"port is {port}, which needs more rights than yours; give one above 1023.") from error
    except OSError as error:
        is_taken = error.errno == errno.EADDRINUSE
        raise UserError(
            f"port is {port}, which another program uses on {host}; give another one, or 0 for a free one."
            if is_taken
            else f"host is {host}, where this machine cannot listen ({error.strerror}); give an address of its own."
        ) from error
