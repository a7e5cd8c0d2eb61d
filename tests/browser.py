"""A headless Chromium, told what to do by its DevTools protocol: it opens pages, clicks, types, drops and looks."""

import asyncio
import base64
import json
import shutil
import subprocess
import time
from contextlib import asynccontextmanager

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Browser:
    """An open page.

    Args:
        socket: The connection to it.
    """

    def __init__(self, socket):
        self.socket, self.number, self.events = socket, 0, []

    async def tell(self, method, **params):
        """Send a command and return its result."""
        self.number += 1
        await self.socket.send_str(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            answer = json.loads((await self.socket.receive(timeout=60)).data)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    async def value(self, script):
        """Return the value of a script on the page."""
        found = await self.tell("Runtime.evaluate", expression=script, returnByValue=True)
        return found["result"].get("value")

    async def until(self, script):
        """Wait until a script on the page returns something, and return it."""
        for _ in range(600):
            if found := await self.value(script):
                return found
            await asyncio.sleep(0.1)
        raise AssertionError(f"{script} never holds: {await self.value('document.body.innerText')}")

    async def open(self, address):
        """Open a page."""
        await self.tell("Page.navigate", url=address)
        await self.until(f"document.readyState == 'complete' && location.href == {address!r}")

    async def place(self, selector):
        """Return the middle of an element."""
        script = f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])(document.querySelector({selector!r})"
        x, y = await self.value(f"{script}.getBoundingClientRect())")
        return {"x": x, "y": y}

    async def click(self, selector):
        """Click with the mouse on an element."""
        place = await self.place(selector)
        for kind in ("mousePressed", "mouseReleased"):
            await self.tell("Input.dispatchMouseEvent", type=kind, **place, button="left", clickCount=1)

    async def paste(self, selector, text):
        """Click on a field and paste a text."""
        await self.click(selector)
        await self.tell("Input.insertText", text=text)

    async def drop(self, selector, path):
        """Drop a file on an element."""
        place = await self.place(selector)
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            await self.tell("Input.dispatchDragEvent", type=kind, **place, data=data)

    async def look(self, width, height, scheme="light"):
        """Return a picture of the page at a width and in a colour scheme, as PNG."""
        await self.shape(width, height, scheme)
        return base64.b64decode((await self.tell("Page.captureScreenshot", format="png"))["data"])

    async def shape(self, width, height, scheme="light"):
        """Set the size of the window and the colour scheme."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        await self.tell("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": scheme}
        await self.tell("Emulation.setEmulatedMedia", features=[feature])


@asynccontextmanager
async def browser(folder):
    """Start Chromium with a profile in a folder, yield its page, and end it."""
    from aiohttp import ClientSession

    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--remote-debugging-port=0"]
    process = subprocess.Popen(
        [CHROMIUM, *flags, f"--user-data-dir={folder}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told, until = folder / "DevToolsActivePort", time.monotonic() + 60
        while not (told.exists() and told.read_text().strip()) and time.monotonic() < until:
            await asyncio.sleep(0.1)
        port = told.read_text().split()[0]
        async with ClientSession() as session:
            pages = []
            while not pages:
                async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
                    pages = [page for page in await answer.json() if page["type"] == "page"]
            async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                page = Browser(socket)
                for domain in ("Page", "Runtime", "Log", "Network"):
                    await page.tell(f"{domain}.enable")
                yield page
    finally:
        process.terminate()
        process.wait(30)
