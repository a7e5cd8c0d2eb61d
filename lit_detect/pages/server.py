"""The server of pages: a form to paste or drop a text, the page of that text, and judgements as JSON."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import TYPE_CHECKING, Any, TypeVar

from lit_core.errors import UserError
from lit_core.files.json_files import parse_json
from lit_core.files.text_files import decoded, refuse_other_content
from lit_core.pages.rendering import render
from lit_core.screen import say
from lit_detect.judging import Judge, Judgement, Through
from lit_detect.pages.guard import HEADERS, Guard
from lit_detect.pages.page import BATCH_SIZE, page_of

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

#: Most texts of a request, and most requests that wait for their turn.
MOST_TEXTS, MOST_WAITING = 100, 8
#: Seconds that a request may take to arrive, and to be judged once it is its turn.
ARRIVAL, JUDGING = 30.0, 120.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class _Asked:
    texts: list[str]


class Turns:
    """Lets one request at a time use the model, in a thread, and few others wait.

    Args:
        seconds: Most time of one; what it does is asked between two batches.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.waiting, self._lock = seconds, 0, asyncio.Lock()

    async def take(self, work: Callable[[Through], Result]) -> Result:
        """Return what the work returns, which is given what its batches go through.

        Raises:
            HTTPException: If too many wait already, or the time is up.
        """
        from starlette.exceptions import HTTPException

        if self.waiting >= MOST_WAITING:
            raise HTTPException(503, f"{MOST_WAITING} requests wait already; ask again later.", {"Retry-After": "10"})
        self.waiting += 1
        try:
            await self._lock.acquire()
        finally:
            self.waiting -= 1
        ended, until = Event(), time.monotonic() + self.seconds

        def through(batches: Sequence[list[str]]) -> Iterable[list[str]]:
            for batch in batches:
                if ended.is_set() or time.monotonic() > until:
                    raise TimeoutError
                yield batch

        try:
            return await asyncio.to_thread(work, through)
        except TimeoutError:
            raise HTTPException(
                503,
                f"This takes longer than {self.seconds:.0f} s; give less, or use `lit-detect explain` or `predict`.",
            ) from None
        finally:
            ended.set()
            self._lock.release()


def application(judge: Judge, is_loopback: bool, group: str = "", seconds: float = JUDGING) -> Starlette:
    """Return the server of a judge, which keeps and logs no text.

    Args:
        judge: What judges the texts.
        is_loopback: Whether only this machine can reach it; then only its own names are answered.
        group: Group of all texts, where the calibration is by group.
        seconds: Most seconds to judge the texts of a request.
    """
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.responses import HTMLResponse, JSONResponse
    from starlette.routing import Route

    turns = Turns(seconds)

    def form(error: str = "", status: int = 200) -> Response:
        values = {"title": "Who wrote this text?", "error": error, "judge": judge, "is_loopback": is_loopback}
        return HTMLResponse(render("lit_detect.pages", "form.html", **values), status)

    async def show(request: Request) -> Response:
        return form()

    async def explain(request: Request) -> Response:
        text, name = await asyncio.wait_for(_posted(request), ARRIVAL)
        return HTMLResponse(await turns.take(partial(page_of, judge, text, name, group, "/")))

    async def answer(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
            raise HTTPException(415, "The body must be JSON; send `content-type: application/json`.")
        body = await asyncio.wait_for(request.body(), ARRIVAL)
        texts = parse_json(body, "The body", _Asked, 'send {"texts": ["…"]}').texts
        if len(texts) > MOST_TEXTS:
            raise HTTPException(413, f"texts has {len(texts):,} texts, but at most {MOST_TEXTS} are judged at once.")

        judged = await turns.take(partial(judge.judge, texts, [group] * len(texts), BATCH_SIZE))
        return JSONResponse([_row(one) for one in judged])

    async def told(request: Request, error: Exception) -> Response:
        """Tell what is wrong with a request, as a sentence in the form or as JSON; never what its text is."""
        if isinstance(error, HTTPException):
            status, sentence = error.status_code, error.detail
        elif isinstance(error, UserError):
            status, sentence = 400, str(error)
        elif isinstance(error, TimeoutError):
            status, sentence = 408, f"The request took longer than {ARRIVAL:.0f} s to arrive."
        else:
            status, sentence = 500, "Something went wrong here; the server's screen says what."
            say(f"A request failed: {type(error).__name__} in {_place(error)}.", error=True)
        headers = {**HEADERS, **(getattr(error, "headers", None) or {})}
        is_json = request.url.path == "/judge"
        response = JSONResponse({"error": sentence}, status) if is_json else form(sentence, status)
        response.headers.update(headers)
        return response

    return Starlette(
        routes=[
            Route("/", show, methods=["GET"]),
            Route("/", explain, methods=["POST"]),
            Route("/judge", answer, methods=["POST"]),
        ],
        middleware=[Middleware(Guard, is_loopback=is_loopback)],
        exception_handlers={kind: told for kind in (HTTPException, UserError, TimeoutError, Exception)},
    )


async def _posted(request: Request) -> tuple[str, str]:
    """Return the text of a form and its name: what was pasted, or the file that was chosen or dropped."""
    from starlette.datastructures import UploadFile

    async with request.form(max_files=1, max_fields=1) as fields:
        file, pasted = fields.get("file"), fields.get("text")
        name = file.filename if isinstance(file, UploadFile) else ""
        content = await file.read() if isinstance(file, UploadFile) else b""
    pasted = pasted.replace("\r\n", "\n") if isinstance(pasted, str) else ""
    if name and pasted.strip():
        raise UserError("There are a text and a file; clear one of them.")
    if not name:
        return pasted, "Your text"
    if not name.lower().endswith(".txt"):
        raise UserError(
            f"{name} must be a .txt, which is one text; `lit-detect explain` reads a .docx or .pdf, and "
            "`lit-detect predict` the rows of a table."
        )
    refuse_other_content(content, name)
    return decoded(content, name, "save it as text in UTF-8"), name


def _row(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as JSON has it, which knows finite numbers only."""
    row = {**vars(judgement), "windows": [window.to_dict() for window in judgement.windows]}
    for one in (row, *row["windows"]):
        one["score"] = one["score"] if math.isfinite(one["score"]) else None
    return row


def _place(error: BaseException) -> str:
    """Return where an error was raised."""
    place = error.__traceback__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    return "an unknown place" if place is None else f"{place.tb_frame.f_code.co_filename}:{place.tb_lineno}"
