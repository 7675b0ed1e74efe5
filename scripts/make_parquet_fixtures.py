#!/usr/bin/env python3
"""Writes the Parquet files of crates/data/tests/fixtures. Needs pyarrow.

Each holds the same 200 rows in two row groups, written by another program than the one that reads them: plain and dictionary
encoded, both page versions, with nulls and blanks, and in each compression that is read (and one that is not).
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = Path(__file__).parent.parent / "crates/data/tests/fixtures"


def text(i: int) -> str | None:
    if i % 17 == 3:
        return None
    if i % 19 == 5:
        return "  \n"
    return f"document {i}: thrée rivers, {i * i} bridges\nand a second line" + " again" * (i % 7)


TABLE = pa.table({
    "id": pa.array(range(200), pa.int64()),
    "text": pa.array([text(i) for i in range(200)], pa.string()),
    "tags": pa.array([["a", "b"]] * 200, pa.list_(pa.string())),
    "kind": pa.array([f"kind {i % 3}" for i in range(200)], pa.string()),
})

FOLDER.mkdir(parents=True, exist_ok=True)
for codec, version, dictionary in [
    ("none", "1.0", False), ("snappy", "1.0", True), ("gzip", "1.0", False), ("zstd", "2.0", True), ("snappy", "2.0", False),
    ("lz4", "1.0", True),
]:
    path = FOLDER / f"{codec}-v{version[0]}{'-dictionary' if dictionary else ''}.parquet"
    pq.write_table(TABLE, path, compression=codec, data_page_version=version, use_dictionary=dictionary, row_group_size=120)
