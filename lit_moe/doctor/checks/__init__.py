"""One check per file, each a function `check` of a `Specimen` that returns a `Finding`."""
