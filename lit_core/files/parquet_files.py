"""The only reader of Parquet files, in which sizes are compared with what a file can hold before it is decoded.

Few bytes can stand for many values there: a text that is stored once for all rows, a number with how often it is
repeated, a packed page. Texts are kept as they are stored until their sizes are known.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_utilities.core.imports import RequirementCache

from lit_core.errors import UserError, reason_of
from lit_core.files.json_files import checked, parse_json
from lit_core.files.rows import MOST_COLUMNS

#: Most bytes that any file may be decoded to, most that each of its bytes may, and most values that are read at once.
_LARGEST, _MOST_PER_BYTE, _AT_ONCE = 1 << 28, 300, 100_000
#: Bytes for which a value counts at least.
_LEAST = 16
#: Bytes of a column that are read from the disk at once; without it all of a group of rows.
_BUFFER = 1 << 20
#: Most bytes of a group of rows whose texts are kept as they are stored: those that are stored plainly gather there.
_LARGEST_GROUP = 1 << 26


def parquet_rows(path: Path, columns: Collection[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield file and number, and the cells by column, of each row of a Parquet file.

    Args:
        path: The file.
        columns: Names of the columns that are needed; None for all. Others with lists or structures are left out.

    Raises:
        UserError: If `pyarrow` is not installed, the file is not complete, it says that it holds far more than a file
            of its size can, or a column that is needed has lists or structures.
    """
    if not RequirementCache("pyarrow>=14"):
        raise UserError('Parquet needs `pyarrow`; install it with `pip install "lit-shift[detect]"`.')
    from pyarrow import ArrowException, parquet, types

    number, decoded = 0, 0
    try:
        with parquet.ParquetFile(path) as file:
            largest, all_groups = _declared(file.metadata)
            _check_size(path, all_groups)
            fields = list(file.schema_arrow)
            classes = _class_names(file.schema_arrow.metadata or {}, f"{path}, its metadata")
        if len(fields) > MOST_COLUMNS:
            raise UserError(
                f"{path} has {len(fields):,} columns, but at most {MOST_COLUMNS:,} are read; divide the table."
            )
        nested = [field.name for field in fields if types.is_nested(field.type)]
        for name in nested:
            if columns is None or name in columns:
                raise UserError(f"{path}, column {name} holds lists or structures; convert it to numbers or texts.")
        flat = [field for field in fields if field.name not in nested]
        names = [field.name for field in flat]
        has_texts = not all(types.is_primitive(field.type) for field in flat)
        at_once = max(1, min(1000, _AT_ONCE // max(len(flat), 1)))
        large = has_texts and largest > _LARGEST_GROUP
        kept = {"buffer_size": _BUFFER, "pre_buffer": False, "read_dictionary": [] if large else names}
        with parquet.ParquetFile(path, **kept) as file:
            for batch in _gathered(file.iter_batches(1 if large else at_once, columns=names), at_once):
                size = sum(map(_size, batch.columns))
                decoded += size
                _check_size(path, decoded)
                step = 1 if size > _LARGEST else 1000
                for start in range(0, len(batch), step):
                    for row in _plain(batch.slice(start, step)).to_pylist():
                        number += 1
                        row |= {name: known[row[name]] for name, known in classes.items() if row.get(name) in known}
                        yield f"{path}, row {number}", row
    except UserError:
        raise
    except (ArrowException, OSError, ValueError, KeyError) as error:  # texts that are not UTF-8, and names, too
        reason = reason_of(error)
        raise UserError(f"{path} is not a complete Parquet file ({reason}). Restore it or write it again.") from error


def _class_names(metadata: Mapping[bytes, bytes], where: str) -> dict[str, dict[Any, str | None]]:
    """Return the names of the classes, by column and number, that `datasets` notes where it stores their numbers."""
    noted, remedy = parse_json(metadata.get(b"huggingface", b"{}"), where), "write the file again"
    features = checked(dict, checked(dict, noted.get("info", {}), where, remedy).get("features", {}), where, remedy)
    found = {name: one for name, one in features.items() if isinstance(one, dict) and one.get("_type") == "ClassLabel"}
    return {name: class_names(checked(list[str], one.get("names"), where, remedy)) for name, one in found.items()}


def class_names(names: Sequence[str]) -> dict[Any, str | None]:
    """Return the names of the classes of `datasets` by number, of which -1 is none."""
    return {**dict(enumerate(names)), -1: None}


def _declared(metadata: Any) -> tuple[int, int]:
    """Return the bytes of the largest group of rows and of all, as the file says; a value counts for some in any case.

    Columns are not asked one by one: pyarrow ends the process where what a file says of one contradicts itself.
    """
    groups = map(metadata.row_group, range(metadata.num_row_groups))
    sizes = [max(group.total_byte_size, group.num_rows * metadata.num_columns * _LEAST) for group in groups]
    return max(sizes, default=0), max(int(metadata.num_rows) * _LEAST, sum(sizes))


def _gathered(batches: Iterable[Any], most: int) -> Iterator[Any]:
    """Yield batches, of which those of one row are joined up to a number of rows and about a megabyte."""
    from pyarrow import Table

    held, size = [], 0
    for batch in batches:
        if len(batch) > 1:
            yield batch
            continue
        held.append(batch)
        size += batch.nbytes
        if len(held) == most or size > _BUFFER:
            yield from Table.from_batches(held).combine_chunks().to_batches()
            held, size = [], 0
    if held:
        yield from Table.from_batches(held).combine_chunks().to_batches()


def _check_size(path: Path, size: int) -> None:
    there = path.stat().st_size
    if size > max(_LARGEST, there * _MOST_PER_BYTE):
        raise UserError(
            f"{path} has {there:,} bytes and stands for more than {max(_LARGEST, there * _MOST_PER_BYTE):,}, too many "
            "for such a file; restore it, or write the table as CSV."
        )


def _size(column: Any) -> int:
    """Return the bytes of a column of a batch when it is decoded."""
    from pyarrow import compute, types

    if not types.is_dictionary(column.type) or types.is_primitive(column.dictionary.type):
        return int(column.nbytes)
    return compute.sum(compute.take(compute.binary_length(column.dictionary), column.indices)).as_py() or 0


def _plain(batch: Any) -> Any:
    """Return a batch with texts in place of numbers of texts."""
    from pyarrow import RecordBatch, types

    columns = [one.dictionary_decode() if types.is_dictionary(one.type) else one for one in batch.columns]
    return RecordBatch.from_arrays(columns, names=batch.schema.names)
