"""Names as an attacker would choose them, and what must not become of them on the screen, in tables and in pages."""

import csv
import re

from lit_core.files.tables import csv_cell

#: Clears the screen, begins lines of its own, turns the text around, and is a formula, markup and mathematics.
NAME = "=1+1\x1b[2J\nRead it out  0000\r\u202eabc\u2028\x9b<script>alert(1)</script>|[x](y) $\\frac$"


def runner(folder, patch, capfd):
    """Return a function that runs a command, and looks at what it prints and what it writes below a folder."""

    patch.chdir(folder)
    patch.setenv("LITSHIFT_DATA", str(folder))

    def run(main, *args, code=0):
        assert main([*map(str, args)]) == code, capfd.readouterr().err
        for text in capfd.readouterr():
            assert all(line.isprintable() for line in text.split("\n")), repr(text)
            assert not re.search("^Read it out  0000", text, re.MULTILINE), text
        check_files(folder)

    return run


def check_files(folder):
    """Check the tables and pages below a folder, but for what a user wrote."""
    for path in folder.rglob("*.csv"):
        if path.name != "given.csv":
            with path.open(newline="") as file:
                cells = [cell for row in csv.reader(file) for cell in row]
            assert [cell for cell in cells if csv_cell(cell) != cell] == [], path
    for path in (path for suffix in ("html", "md") for path in folder.rglob(f"*.{suffix}")):
        assert "<script" not in path.read_text() and all(line.isprintable() for line in path.read_text().split("\n"))
