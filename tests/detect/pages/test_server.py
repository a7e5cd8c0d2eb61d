"""The server of pages: what it answers, what it refuses, and that it keeps no text."""

import asyncio
import json
import logging
import math
import threading
import time
from dataclasses import replace

import pytest
import torch
from test_judging import CALIBRATED, JUDGE, LONG
from test_windows import Words

starlette = pytest.importorskip("starlette", reason="the extra serve is missing")
from starlette.exceptions import HTTPException  # noqa: E402
from starlette.testclient import TestClient  # noqa: E402

from lit_detect.pages import server  # noqa: E402
from lit_detect.pages.guard import LARGEST  # noqa: E402
from lit_detect.pages.server import MOST_TEXTS, MOST_WAITING, Turns, application  # noqa: E402


def client(judge=CALIBRATED, **options):
    return TestClient(application(judge, True, **options), "http://127.0.0.1:8765", raise_server_exceptions=False)


def post(text="", file=None, **options):
    return client(**options).post("/", data={"text": text}, files={} if file is None else {"file": file})


def test_a_text_that_is_pasted_or_dropped_gives_the_page_of_explain():
    form = client().get("/")
    assert form.status_code == 200 and '<form method="post"' in form.text and "<script" not in form.text
    pasted, dropped = post(LONG), post(file=("essay <1>.txt", LONG.encode(), "text/plain"))
    for page, name in ((pasted, "Your text"), (dropped, "essay &lt;1&gt;.txt")):
        assert page.status_code == 200 and "Called machine-written" in page.text and f">{name}</h1>" in page.text
        assert 'href="/"' in page.text


@pytest.mark.parametrize(
    ("fields", "status", "sentence"),
    [
        ({"text": ""}, 200, "No judgement"),
        ({"text": " \n "}, 200, "No judgement"),
        ({"text": "two x"}, 200, "2 tokens, fewer than 5"),
        ({"file": ("empty.txt", b"", "text/plain")}, 200, "No judgement"),
        ({"text": "<script>alert(1)</script> a b c d x"}, 200, "&lt;script&gt;alert(1)&lt;/script&gt;"),
        ({"text": "שלום עולם x x x x"}, 200, '<p dir="auto">'),
        ({"text": "a b", "file": ("a.txt", b"a", "text/plain")}, 400, "There are a text and a file"),
        ({"file": ("a.txt", b"\x89PNG\x00\xff", "text/plain")}, 400, "a.txt is not in UTF-8"),
        ({"file": ("a.txt", b"\xff\xfe", "text/plain")}, 400, "a.txt is not in UTF-8"),
        ({"file": ("a.txt", b"{\\rtf1 a b c d x}", "text/plain")}, 400, "a.txt is RTF by its content"),
        ({"file": ("a.txt", b"<!DOCTYPE html><p>a b c d x", "text/plain")}, 400, "a.txt is HTML by its content"),
        ({"file": ("a.csv", b"text,label\na b c d x,human\n", "text/csv")}, 400, "a.csv must be a .txt"),
        ({"file": ("a.PDF", b"%PDF-1.7", "application/pdf")}, 400, "a.PDF must be a .txt"),
        ({"text": "x " * 5_000_000}, 413, "larger than 1 MiB"),
        ({"file": ("a.txt", b"x" * 10_000_000, "text/plain")}, 413, "larger than 1 MiB"),
    ],
)
def test_a_bad_text_is_answered_in_a_sentence(fields, status, sentence):
    page = post(**fields)
    assert page.status_code == status and sentence in page.text and "<script" not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["cache-control"] == "no-store" and "access-control-allow-origin" not in page.headers


def test_texts_are_judged_as_json():
    rows = client().post("/judge", json={"texts": [LONG, "x", ""]}).json()
    assert [row["decision"] for row in rows] == ["machine", "abstain", "abstain"]
    found = CALIBRATED.judge([LONG])[0]
    assert rows[0]["p_value"] == found.p_value and rows[0]["tokens"] == 83 and rows[1]["reason"]
    assert rows[0]["windows"] == [window.to_dict() for window in found.windows]


def test_a_score_that_is_no_number_is_null(monkeypatch):
    monkeypatch.setattr(Words, "score", lambda self, texts: torch.full((len(texts),), math.nan))
    ((row,),) = [client().post("/judge", json={"texts": ["a b c d e f"]}).json()]
    assert row["decision"] == "abstain" and row["score"] is None and row["windows"][0]["score"] is None


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"", 400, "The body is not valid JSON"),
        (b"[" * 100_000, 400, "levels deep"),
        (b'{"texts": "x"}', 400, "texts"),
        (b'{"texts": [1]}', 400, "texts"),
        (b'{"texts": ["\\ud800"]}', 400, "half a surrogate pair"),
        (b'{"texts": ["x"], "group": "news"}', 400, "group"),
        (json.dumps({"texts": ["x"] * (MOST_TEXTS + 1)}).encode(), 413, f"at most {MOST_TEXTS}"),
        (b" " * (LARGEST + 1), 413, "larger than 1 MiB"),
    ],
)
def test_a_bad_body_is_answered_in_a_sentence(body, status, sentence):
    answer = client().post("/judge", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == status and sentence in answer.json()["error"]
    assert client().post("/judge", content=b'{"texts": []}').status_code == 415


def test_other_sites_and_other_names_are_refused():
    names = {
        "127.0.0.1": 200,
        "localhost:8765": 200,
        "[::1]:8765": 200,
        "evil.example": 400,
        "[": 400,
        "": 400,
        "127.0.0.1.evil.example": 400,
    }
    for name, status in names.items():
        assert client().get("/", headers={"host": name}).status_code == status, name
    for origin, status in {"http://127.0.0.1:8765": 200, "http://evil.example": 403, "null": 403}.items():
        answer = client().post("/judge", json={"texts": []}, headers={"origin": origin})
        assert answer.status_code == status, origin
    open_to_all = TestClient(application(CALIBRATED, False), "http://127.0.0.1:8765")
    assert open_to_all.get("/", headers={"host": "my.machine"}).status_code == 200
    assert client().get("/judge").status_code == 405 and client().get("/x").status_code == 404


def test_nothing_of_a_text_is_logged(caplog, capfd, monkeypatch):
    caplog.set_level(logging.DEBUG)
    failing = replace(JUDGE, detector=Words())
    monkeypatch.setattr(Words, "score", lambda self, texts: {}[texts[0]])
    assert post("secret " * 6, judge=failing).status_code == 500
    said = capfd.readouterr()
    assert "A request failed: KeyError in" in said.err
    assert "secret" not in said.out + said.err + caplog.text


def test_what_takes_too_long_ends_and_the_next_one_is_answered(monkeypatch):
    slow = client(seconds=0.05)
    monkeypatch.setattr(Words, "score", lambda self, texts: time.sleep(0.03) or torch.zeros(len(texts)))
    begin = time.monotonic()
    answer = slow.post("/judge", json={"texts": [" ".join(map(str, range(300)))]})
    assert answer.status_code == 503 and "takes longer than" in answer.json()["error"]
    assert time.monotonic() - begin < 5
    assert slow.post("/judge", json={"texts": ["a b c d e"]}).status_code == 200


def test_one_request_at_a_time_uses_the_model_and_few_wait():
    free, running, most = threading.Event(), [], []

    def work(through):
        running.append(1)
        most.append(len(running))
        free.wait(5)
        running.pop()

    async def ask():
        turns = Turns(10)
        asked = [asyncio.create_task(turns.take(work)) for _ in range(MOST_WAITING + 2)]
        await asyncio.sleep(0.05)
        free.set()
        return await asyncio.gather(*asked, return_exceptions=True)

    answers = asyncio.run(ask())
    assert max(most) == 1 and len(most) == MOST_WAITING + 1
    (refused,) = [answer for answer in answers if answer is not None]
    assert isinstance(refused, HTTPException) and refused.status_code == 503 and "Retry-After" in refused.headers


def test_a_body_that_does_not_arrive_is_given_up(monkeypatch):
    monkeypatch.setattr(server, "ARRIVAL", 0.01)
    sent = []

    async def receive():
        await asyncio.sleep(10)

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/judge", "headers": headers, "query_string": b"", "app": None}
    asyncio.run(application(CALIBRATED, True)(scope, receive, send))
    assert sent[0]["status"] == 408
