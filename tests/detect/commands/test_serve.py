"""lit-detect serve and explain as commands: a port in use, Ctrl-C, and a click in a real browser."""

import asyncio
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
from browser import CHROMIUM, browser
from elements import Page

from lit_detect.cli import main
from lit_detect.commands import serve as command

pytest.importorskip("uvicorn", reason="the extra serve is missing")
TEXT = "<script>document.title = 'ran'</script> It was late, and Emma went home. שלום " * 3


@pytest.fixture(scope="module")
def published(tiny_bert, tmp_path_factory):
    """A folder with a published classifier, which reads 48 tokens at once."""
    folder = tmp_path_factory.mktemp("published") / "classifier"
    shutil.copytree(tiny_bert, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"id2label": {"0": "human", "1": "machine"}}))
    return folder


@contextmanager
def serving(detector):
    """Start the server on a free port, and yield its address and process."""
    line = [sys.executable, "-m", "lit_detect", "serve", "--detector", str(detector), "--port", "0"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        assert said.startswith("Serving"), said + process.stderr.read()
        yield re.search("http://[^ \n]+", said)[0], process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_at_once(signum, code, published):
    with serving(published) as (address, process):
        body = json.dumps({"texts": ["Emma met Anna."]}).encode()
        with urlopen(Request(f"{address}judge", body, {"content-type": "application/json"})) as answer:
            assert json.load(answer)[0]["decision"] == "abstain"
        begin = time.monotonic()
        process.send_signal(signum)
        assert process.wait(20) == code and time.monotonic() - begin < 10
        assert process.stderr.read() == "lit-detect: interrupted.\n"
        assert "neither stored nor logged" in process.stdout.read()


def test_what_is_wrong_with_the_place_to_listen_is_said_first(capsys, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--port", str(port)]) == 2
    assert f"port is {port}, which another program uses on 127.0.0.1; give another" in capsys.readouterr().err
    for flags, sentence in (
        (["--port", "70000"], "port is 70000, but must be from 0 to 65535"),
        (["--host", "203.0.113.7"], "host is 203.0.113.7, where this machine cannot listen"),
    ):
        assert main(["serve", *flags]) == 2
        assert sentence in capsys.readouterr().err
    monkeypatch.setattr(command, "RequirementCache", lambda name: False)
    assert main(["serve"]) == 2
    assert 'install it with `pip install "lit-shift[serve]"`' in capsys.readouterr().err


def test_a_document_becomes_a_page(published, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("essay.txt").write_text(TEXT)
    given = ["explain", "--detector", str(published), "--input", "essay.txt"]
    assert main(given) == 0
    page = Page.read("page.html")
    assert "No judgement" in page.text and "windows, and a threshold for one" in page.text and not page.loaded
    assert "Page         page.html" in capsys.readouterr().out and Path("page.html.run.json").is_file()
    Path("tiny.txt").write_text("two words")
    assert main([*given[:-1], "tiny.txt", "--overwrite"]) == 0
    assert "fewer than 50" in Path("page.html").read_text()
    Path("image.txt").write_bytes(b"\x89PNG\x00")
    Path("table.csv").write_text("text\na\n")
    for name, sentence in (
        ("image.txt", "not in UTF-8"),
        ("none.txt", "input is none.txt, but there is no such file"),
        ("table.csv", "input is table.csv, but must be one document, .docx, .pdf, .txt"),
    ):
        assert main([*given[:-1], name, "--output", "new.html"]) == 2
        assert sentence in capsys.readouterr().err and not Path("new.html").exists()


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
def test_a_text_is_pasted_and_dropped_in_a_browser(published, tmp_path):
    (tmp_path / "dropped.txt").write_text(TEXT)

    async def use(address):
        async with browser(tmp_path / "profile") as page:
            await page.shape(400, 900)
            await page.open(address)
            await page.paste("#text", TEXT)
            await page.click("button")
            said = await page.until("document.querySelector('.text') && document.body.innerText")
            assert "No judgement" in said and "Your text" in said and TEXT.split()[0] in said
            assert await page.value("document.title") == "Your text", "the script of the text ran"
            for width in (400, 1200):
                await page.shape(width, 900)
                assert await page.value("document.documentElement.scrollWidth") <= width
            await page.click("a")
            await page.until("!!document.querySelector('#file')")
            await page.drop("#file", tmp_path / "dropped.txt")
            await page.until("document.querySelector('#file').files.length")
            await page.click("button")
            await page.until("document.querySelector('h1').innerText == 'dropped.txt'")
            return page.events

    with serving(published) as (address, _):
        events = asyncio.run(use(address))
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} <= {address, f"{address}favicon.ico"}
    assert not [one for one in events if one["method"] == "Runtime.exceptionThrown"]
