"""What each request to the server must be, and what each answer forbids the browser."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

#: Most bytes of a request, and of a larger one how many are read and dropped, so that the browser reads the answer.
LARGEST, _DROPPED = 1 << 20, 1 << 28
#: The pages load nothing, run nothing, are shown in no frame and kept by no browser, and other pages see none of it.
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-resource-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
}


#: Names of this machine, under which only it reaches a server.
LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Guard:
    """Refuses requests that are too large or that another site's page makes, and adds `HEADERS` to each answer.

    Args:
        app: What answers the others.
        is_loopback: Whether the server must be asked by a name of this machine, so that no site reaches it by giving
            its own name this machine's address.
    """

    def __init__(self, app: Application, is_loopback: bool) -> None:
        self.app, self.is_loopback = app, is_loopback

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI has it."""
        from starlette.datastructures import Headers, MutableHeaders
        from starlette.exceptions import HTTPException
        from starlette.responses import PlainTextResponse

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        size = 0

        async def limited() -> Message:
            nonlocal size
            message = await receive()
            size += len(message.get("body", b""))
            if size > LARGEST:
                while message.get("more_body") and size < _DROPPED:
                    message = await receive()
                    size += len(message.get("body", b""))
                raise HTTPException(413, f"The request is larger than {LARGEST >> 20} MiB; give less text.")
            return message

        if scope["type"] != "http":
            return
        headers = Headers(scope=scope)
        host, origin = headers.get("host", ""), headers.get("origin")
        if self.is_loopback and _name(host) not in LOOPBACK:
            await PlainTextResponse(f"Ask for {' or '.join(LOOPBACK[:2])}.", 400)(scope, receive, guarded)
        elif origin is not None and origin.partition("//")[2] != host:
            await PlainTextResponse("Another site's page asks; open this one itself.", 403)(scope, receive, guarded)
        else:
            await self.app(scope, limited, guarded)


def _name(host: str) -> str | None:
    """Return the name in a header that also tells a port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:  # half an address
        return None
