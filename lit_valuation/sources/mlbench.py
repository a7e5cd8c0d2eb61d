"""Tables of the UCI repository, from Debian's package of R's mlbench."""

from __future__ import annotations

import warnings

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError
from lit_core.fetch.debian import DebianPackage
from lit_valuation.samples import Samples
from lit_valuation.sources.base import LabelledSource, to_samples


class MLBenchTable(DebianPackage, LabelledSource):
    """A table of mlbench.

    Attributes:
        table: Name of the table in the package.
        label: Column of the classes.
    """

    package = "r-cran-mlbench"
    known = {"2.1-3-1_amd64": "2f1127f7b5e7d08703b13b52ef1976a0c355a7660d6ac575e29b87b13921bc06"}  # noqa: RUF012
    licence, input = "GPL-2, the package; from the UCI repository", "table"
    table: str
    label: str

    def samples(self) -> Samples:
        """Return the rows, including exact copies.

        Raises:
            UserError: If the package cannot be fetched, or `rdata` is not installed.
        """
        if not RequirementCache("rdata>=0.11"):
            raise UserError(
                f'The source {self.name} needs `rdata`; install it with `pip install "lit-shift[valuation]"`.'
            )
        import rdata

        (path,) = self.files("usr/lib/R/site-library/mlbench/data", f"{self.table}.rda")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # rdata warns that it assumes ASCII, which is right
            table = rdata.conversion.convert(rdata.parser.parse_file(path))[self.table]
        labels = table.pop(self.label)
        self.columns = tuple(table.columns)
        return to_samples(self.name, table.to_numpy("float32"), labels, classes=list(labels.cat.categories))


class LetterRecognition(MLBenchTable):
    """20,000 distorted letters as 16 numbers each, 26 classes. One row in fifteen is a copy of another row.

    Args:
        from_folder: Folder that r-cran-mlbench was unpacked in with dpkg-deb -x; None fetches it with apt.
    """

    name, table, label = "letter", "LetterRecognition", "lettr"


class Satellite(MLBenchTable):
    """6,435 pixels of a satellite image with their neighbours as 36 numbers, 6 kinds of ground.

    Args:
        from_folder: Folder that r-cran-mlbench was unpacked in with dpkg-deb -x; None fetches it with apt.
    """

    name, table, label = "satellite", "Satellite", "classes"


class Shuttle(MLBenchTable):
    """58,000 states of a space shuttle's radiators as 9 numbers, 7 classes, four of them rare (10 to 171 rows).

    Args:
        from_folder: Folder that r-cran-mlbench was unpacked in with dpkg-deb -x; None fetches it with apt.
    """

    name, table, label = "shuttle", "Shuttle", "Class"
