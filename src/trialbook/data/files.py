"""Tables from files: CSV, TSV and Parquet, compressed or not, here or wherever fsspec finds them."""

from __future__ import annotations

import csv
import io
import os
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import fsspec
import pandas as pd
from fsspec.utils import infer_compression

from trialbook.errors import DataError

_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zip", ".zst")
_SEPARATORS = (",", ";", "\t", "|")
_TAB = "tab"
_PARQUET = b"PAR1"
# How much of a file is looked at to tell what it is.
_HEAD = 8192


@dataclass(frozen=True)
class Format:
    """How tables are written.

    Attributes:
        separator: What stands between two fields, a tab also by that name; None for a tab in .tsv and .tab files, and
            a comma in others.
        encoding: Encoding of the text.
        missing: Further texts that stand for a missing value.
        options: Further keywords of `pandas.read_csv`.
    """

    separator: str | None = None
    encoding: str = "utf-8"
    missing: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    def separator_of(self, path: str) -> str:
        """The separator of one file."""
        if self.separator is None:
            return "\t" if _suffixes(path)[0] in (".tsv", ".tab") else ","
        return "\t" if self.separator in (_TAB, "\\t") else self.separator


def read_table(path: str, key: str, form: Format) -> pd.DataFrame:
    """The table in a file.

    Args:
        path: A path, or an address that fsspec understands.
        key: The key of the configuration it was named by, for messages.
        form: How it is written.

    Raises:
        DataError: If there is no such file, it is no table, or its columns cannot be told apart.
    """
    where = f"{key}={shown(path)}"
    content = read_bytes(path, where)
    if not content.strip():
        raise DataError(f"{where} is empty.")
    table = _parquet(content, where) if content.startswith(_PARQUET) else _text(content, path, where, form)
    table.columns = [str(name) for name in table.columns]
    if (repeated := table.columns[table.columns.duplicated()]).size:
        raise DataError(f"{where} has more than one column {repeated[0]}; column names must differ.")
    if not len(table):
        raise DataError(f"{where} has a header but no rows.")
    return table


def read_bytes(path: str, where: str) -> bytes:
    """What a file holds, uncompressed.

    Args:
        path: A path, or an address that fsspec understands.
        where: How to call it in messages.

    Raises:
        DataError: If it cannot be read.
    """
    try:
        with fsspec.open(path, "rb", compression=infer_compression(_bare(path))) as file:
            content: bytes = file.read()
            return content
    except FileNotFoundError as error:
        looked = "" if "://" in path or os.path.isabs(path) else f"; it was looked for in {os.getcwd()}"
        raise DataError(f"{where} does not exist{looked}.") from error
    except IsADirectoryError as error:
        raise DataError(f"{where} is a folder; give a file.") from error
    except ImportError as error:
        raise DataError(f"{where} needs a package that is not installed: {error}") from error
    except Exception as error:  # whatever a far-away store, or a damaged archive, raises
        raise DataError(f"{where} cannot be read: {' '.join(str(error).split()) or type(error).__name__}") from error


def name_of(path: str) -> str:
    """What to call the data in a file: its name without suffixes, fit for the name of a registered model."""
    name = PurePosixPath(_bare(path)).name
    for suffix in filter(None, reversed(_suffixes(path))):
        name = name[: -len(suffix)]
    return re.sub(r"[/:.%\"']+", "_", name).strip() or "table"


def shown(path: str) -> str:
    """A path or address without the credentials that may be in it."""
    return re.sub(r"://[^/@\s]+@", "://***@", path).partition("?")[0] if "://" in path else path


def _bare(path: str) -> str:
    return path.partition("?")[0] if "://" in path else path.replace(os.sep, "/")


def _suffixes(path: str) -> tuple[str, str]:
    """The suffixes that tell the format and the compression, each empty if there is none."""
    name = PurePosixPath(_bare(path))
    packed = name.suffix.lower() if name.suffix.lower() in _COMPRESSIONS else ""
    return (name.with_suffix("") if packed else name).suffix.lower(), packed


def _parquet(content: bytes, where: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(io.BytesIO(content)).reset_index(drop=True)
    except (ValueError, OSError) as error:
        raise DataError(f"{where} is a damaged Parquet file: {' '.join(str(error).split())}") from error


def _text(content: bytes, path: str, where: str, form: Format) -> pd.DataFrame:
    text = _decoded(content, where, form.encoding)
    separator = form.separator_of(path)
    if "header" not in form.options:
        _check_header(text, separator, where)
    try:
        with warnings.catch_warnings():
            # pandas only warns when it cuts off fields that have no heading.
            warnings.simplefilter("error", pd.errors.ParserWarning)
            table = pd.read_csv(
                io.StringIO(text),
                **{
                    "sep": separator,
                    "na_values": list(form.missing),
                    "index_col": False,
                    "low_memory": False,
                    "skipinitialspace": True,
                    **form.options,
                },
            )
    except pd.errors.ParserWarning as error:
        raise DataError(f"{where} has more fields in its rows than in its header.") from error
    except (ValueError, TypeError) as error:
        said = " ".join(str(error).split())
        raise DataError(f"{where} is no table with {_called(separator)} between fields: {said}") from error
    if not form.options and len(table) and table.iloc[:, -1].isna().any():
        _check_lengths(text, separator, table.shape[1], where)
    return table


def _decoded(content: bytes, where: str, encoding: str) -> str:
    head = content[:_HEAD].lstrip()
    if b"\0" in head and encoding.lower().startswith("utf-8"):
        raise DataError(f"{where} is neither text nor Parquet; give a CSV, TSV or Parquet file.")
    if head[:15].lower().startswith((b"<!doctype", b"<html")):
        raise DataError(f"{where} is a web page, not a table; give the address of the file itself.")
    try:
        return content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where} is not {encoding} at byte {error.start}; name its encoding, for example data.encoding=latin-1."
        ) from error
    except LookupError as error:
        raise DataError(f"data.encoding={encoding!r} is no encoding that Python knows.") from error


def _check_header(text: str, separator: str, where: str) -> None:
    header = next(line for line in text.splitlines() if line.strip())
    names = [name.strip() for name in next(csv.reader([header], delimiter=separator))]
    if len(names) == 1:
        used = max((s for s in _SEPARATORS if s != separator), key=header.count)
        if header.count(used):
            hint = f"data.separator={_TAB}" if used == "\t" else f"\"data.separator='{used}'\""
            raise DataError(f"{where} has only one column with {_called(separator)} between fields; try {hint}.")
    repeated = [name for i, name in enumerate(names) if name and name in names[:i]]
    if repeated:
        raise DataError(f"{where} has more than one column {repeated[0]}; column names must differ.")


def _check_lengths(text: str, separator: str, width: int, where: str) -> None:
    """A line with too few fields may well be a file cut short; pandas takes it for one with missing values."""
    lines = csv.reader(io.StringIO(text), delimiter=separator)
    for fields in lines:
        if fields and len(fields) < width:
            raise DataError(f"{where} has {len(fields)} fields in line {lines.line_num}, where its header has {width}.")


def _called(separator: str) -> str:
    return f"a {_TAB}" if separator == "\t" else f"{separator!r}"
