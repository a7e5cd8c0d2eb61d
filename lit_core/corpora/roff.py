"""Conversion of manual pages, written with the man macros, to plain text."""

from __future__ import annotations

import re

#: Signs by the two-letter (``\(en``) or bracketed (``\[en]``) names that pages use.
_SIGNS = {
    "en": "–", "em": "—", "hy": "-", "bu": "•", "aq": "'", "dq": '"', "oq": "‘", "cq": "’", "lq": "“", "rq": "”",
    "at": "@", "rs": "\\", "ha": "^", "ti": "~", "ga": "`", "co": "©", "rg": "®", "tm": "™", "if": "∞", "is": "∫",
    "de": "°", "mc": "µ", "+-": "±", "mu": "×", "pd": "∂", "*p": "π", "*b": "β", "*a": "α", "*m": "µ", "<=": "≤",
    ">=": "≥", "!=": "≠", "->": "→", "<-": "←", "la": "⟨", "ra": "⟩", "Fo": "«", "Fc": "»", "Bq": "„", "bq": "‚",
    "ss": "ß", ":a": "ä", ":o": "ö", ":u": "ü", ":A": "Ä", ":O": "Ö", ":U": "Ü", "'e": "é", "'a": "á", "`e": "è",
    "`a": "à", "^e": "ê", ",c": "ç", "~n": "ñ", "Eu": "€", "eu": "€", "ct": "¢", "Po": "£", "sc": "§", "12": "½",
    "sq": "□", "or": "|", "ba": "|", "sl": "/", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "fm": "′", "sd": "″",
}  # fmt: skip
#: Strings that the macro packages define: ``\*(lq``, ``\*(Aq``.
_STRINGS = {"Aq": "'", "lq": "“", "rq": "”", 'L"': "“", 'R"': "”", "Tm": "™", "R": "®", "Gt": ">", "Lt": "<", "Am": "&"}
_ESCAPE = re.compile(
    r"""\\(?:
      ["\#].*                                                     # comment
    | (?P<sign>\((?:[^\s\\]{2})|\[[^]\n]{0,80}\])                      # \(en \[en]
    | \*(?P<string>\(..|\[[^]\n]{0,80}\]|.)                            # \*(lq
    | [fFmMgkn][-+]?(?:\(..|\[[^]\n]{0,80}\]|.)                        # font, colour, register
    | s(?:[-+]?\d|[-+]?\(\d\d|[-+]?\[[^]\n]{0,80}\]|[-+]?'[^'\n]*')    # size
    | [hvwxloDLbXSHN]'(?:[^'\n]*)'                                # motion, drawing
    | (?P<other>.|$)
    )""",
    re.VERBOSE | re.MULTILINE,
)
#: A block of several lines in a table, whose end may be missing.
_CELL = re.compile(r"T\{\n(.*?)(?:(\n?T\})|\Z)", re.DOTALL)
_PLAIN = {"-": "-", "~": " ", "0": " ", " ": " ", "e": "\\", "\\": "\\", "t": "\t", "'": "´", "`": "`", ".": "."}
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|((?:\\ |\\[^ ]|[^\s\\])+)')
_BREAKS = {"PP", "P", "LP", "sp", "RS", "RE", "HP", "Sp", "SY", "YS", "in", "ti", "ce", "INDENT", "UNINDENT"}
_LITERAL_ON, _LITERAL_OFF = {"nf", "EX", "Vb"}, {"fi", "EE", "Ve"}
_FONTS, _MIXED_FONTS = {"B", "I", "SM", "SB", "R"}, {"BR", "RB", "IR", "RI", "BI", "IB"}


def roff_to_text(source: str) -> str:
    """Return the text of a manual page: a line per paragraph, blank lines between, literal blocks as they are.

    Args:
        source: A page written with the man macros.

    Returns:
        The text; empty for a page that only refers to another one, or that is written with other macros (mdoc).
    """
    if re.search(r"^\.\s*(?:so\s|Dd\b)", source, re.MULTILINE):
        return ""
    page = _Page()
    for line in _without_programs(source.splitlines()):
        page.line(line)
    return page.text()


def plain(text: str) -> str:
    """Return a piece of roff with its escape sequences replaced by the characters that they stand for."""

    def replace(escape: re.Match[str]) -> str:
        name = (escape["sign"] or "").strip("([]")
        if escape["sign"]:
            code = re.fullmatch(r"u([0-9A-Fa-f]{4,6})|char(\d+)", name)
            if code:
                return chr(int(code[1], 16) if code[1] else int(code[2]))
            return _SIGNS.get(name, "")
        if escape["string"]:
            return _STRINGS.get(escape["string"].strip("([]"), "")
        return _PLAIN.get(escape["other"] or "", "")

    return _ESCAPE.sub(replace, text)


def _without_programs(lines: list[str]) -> list[str]:
    """Remove definitions and conditionals, which hold only layout and bullets."""
    text_lines = []
    depth, until = 0, ""
    for line in lines:
        if until:
            until = "" if line.rstrip() == until or (until == ".." and re.match(r"[.']\.\s*$", line)) else until
            continue
        command = re.match(r"[.']\s*(\w+)\s*(\S*)", line)
        if depth or (command and command[1] in ("if", "ie", "el", "while")):
            depth = max(depth + line.count(r"\{") - line.count(r"\}"), 0)
        elif command and command[1] in ("de", "de1", "am", "ig"):
            end = command[2] if command[1] == "ig" else line.split()[2] if len(line.split()) > 2 else ""
            until = f".{end}" if end else ".."
        else:
            text_lines.append(line)
    return text_lines


class _Page:
    """Collects the paragraphs of a page, line by line."""

    def __init__(self) -> None:
        self.paragraphs: list[str] = []
        self.words = ""
        self.literal = False
        self.table: list[str] | None = None
        self.tag_follows = self.heading_follows = False
        self.tag = ""
        self.link = ""

    def text(self) -> str:
        self.flush()
        return "\n\n".join(self.paragraphs) + "\n" if self.paragraphs else ""

    def line(self, line: str) -> None:
        if self.table is not None:
            self.table_line(line)
        elif re.match(r"[.']", line):
            self.macro(line)
        elif not line.strip():
            if self.literal:
                self.words += "\n"
            else:
                self.flush()
        else:
            self.add(line)

    def add(self, source: str) -> None:
        """Add a line of text, or of arguments, at the current position."""
        text = plain(source)
        if self.heading_follows:
            self.heading_follows = False
            self.paragraphs.append(text.strip())
        elif self.tag_follows:
            self.tag_follows = False
            self.tag = text.strip()
        elif self.literal:
            self.words += text.rstrip() + "\n"
        elif text.strip():
            # A line that ends with \c continues without a blank.
            self.words += " ".join(text.split()) + ("" if re.search(r"\\c\s*$", source) else " ")

    def flush(self) -> None:
        """End the paragraph."""
        text = self.words.strip("\n").rstrip() if self.literal else self.words.strip()
        if self.tag in ("•", "-", "*", "–", "+"):
            text = f"{self.tag} {text}" if text else ""
        elif self.tag:
            text = f"{self.tag}\n{text}" if text else self.tag
        if text:
            self.paragraphs.append(text)
        self.words = self.tag = ""
        self.tag_follows = False

    def macro(self, line: str) -> None:
        """Process a line that begins with a dot."""
        request = re.match(r"[.']\s*(\w+)\s*(.*)", line)
        if not request:
            return
        name, rest = request[1], request[2]
        arguments = [quoted.replace('""', '"') if quoted else bare for quoted, bare in _ARGUMENT.findall(rest)]
        if name in _BREAKS:
            if not (self.literal and name == "sp"):
                self.flush()
            else:
                self.words += "\n"
            if name == "SY" and arguments:
                self.add(arguments[0])
        elif name in ("SH", "SS"):
            self.literal = False
            self.flush()
            self.heading_follows = not arguments
            if arguments:
                self.paragraphs.append(plain(" ".join(arguments)).strip())
        elif name in ("TP", "TQ"):
            self.flush()
            self.tag_follows = True
        elif name == "IP":
            self.flush()
            self.tag = plain(arguments[0]).strip() if arguments else ""
        elif name == "br":
            if not self.literal and self.words.strip():
                self.words = self.words.rstrip() + "\n"
        elif name in _LITERAL_ON:
            self.flush_unless_tagged()
            self.literal = True
        elif name in _LITERAL_OFF:
            self.flush()
            self.literal = False
        elif name in _FONTS and arguments:
            self.add(" ".join(arguments))
        elif name in _MIXED_FONTS and arguments:
            self.add("".join(arguments))
        elif name == "OP" and arguments:
            self.add(f"[{' '.join(arguments)}]")
        elif name == "TS":
            self.flush()
            self.table = []
        else:
            self.reference(name, arguments)

    def flush_unless_tagged(self) -> None:
        """End the paragraph, but keep a tag for the literal block that it names."""
        if self.words.strip():
            self.flush()

    def reference(self, name: str, arguments: list[str]) -> None:
        """Write links and addresses after the text that they belong to; any other macro is layout."""
        if name in ("UR", "MT"):
            self.link = plain(arguments[0]) if arguments else ""
        elif name in ("UE", "ME") and self.link:
            self.add(f"⟨{self.link}⟩{arguments[0] if arguments else ''}".replace("\\", "\\e"))
            self.link = ""
        elif name in ("URL", "MTO") and arguments:
            address, text, punctuation = [*arguments, "", ""][:3]
            self.add((text or address) + punctuation)

    def table_line(self, line: str) -> None:
        assert self.table is not None
        if line.startswith(".TE"):
            self.paragraphs += [text for text in [_table(self.table)] if text]
            self.table = None
        elif not re.match(r"[.']", line):
            self.table.append(line)


def _table(lines: list[str]) -> str:
    """Return a table's rows as lines, cells divided by tabs."""
    # Options end with ";", the description of the columns with ".".
    start = next((index for index, line in enumerate(lines) if line.rstrip().endswith(".")), -1)
    separator = re.search(r"tab\s*\((.)\)", " ".join(lines[: start + 1]))
    text = "\n".join(lines[start + 1 :])
    if separator:
        text = text.replace(separator[1], "\t")
    # A block of several lines is one cell.
    text = _CELL.sub(lambda cell: " ".join(cell[1].split()) if cell[2] else cell[0], text)
    rows = ["\t".join(plain(cell).strip() for cell in row.split("\t")) for row in text.splitlines()]
    return "\n".join(row for row in rows if row.strip("\t _=-"))
