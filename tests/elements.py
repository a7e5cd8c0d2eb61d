"""What a page in HTML holds, and what it would load."""

import re
from html.parser import HTMLParser
from pathlib import Path

#: What a page could load: elements and attributes with an address.
LOADS = {"script", "link", "iframe", "object", "embed", "base", "form", "audio", "video", "source"}


class Page(HTMLParser):
    """The elements of a page, its text, and what it would load."""

    def __init__(self, written):
        super().__init__()
        self.elements, self.text, self.loaded, self.cells = [], "", [], []
        self.feed(written)

    @classmethod
    def read(cls, path):
        """Return the page of a file."""
        return cls(Path(path).read_text())

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        addresses = [value for name, value in attributes if re.search("href|src|style", name) and value]
        self.loaded += [tag] if tag in LOADS else []
        self.loaded += [one for one in addresses if "//" in one or ("url(" in one and "url(#" not in one)]
        self.loaded += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += data
        self.cells += [data] if self.elements[-1:] in (["td"], ["th"]) else []
