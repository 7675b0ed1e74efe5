#!/usr/bin/env python3
"""Writes the Parquet files of crates/data/tests/fixtures and crates/cli/tests/fixtures. Needs pyarrow.

Each of the former holds the same 200 rows in two row groups, written by another program than the one that reads them: plain and dictionary
encoded, both page versions, with nulls and blanks, and in each compression that is read (and one that is not). The latter hold
tasks with the columns that MMLU, ARC, GSM8K and SST-2 (GLUE) have on the Hugging Face Hub, about facts that the demo model knows.
"""

import json
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


# Tasks: the columns and types are the published ones, the rows are our own.
TASKS = Path(__file__).parent.parent / "crates/cli/tests/fixtures"
RECORDS = json.loads((Path(__file__).parent.parent / "examples/demo-model/requests.json").read_text())[:12]
FACTS = [
    (asked["prompt"].replace("{}", asked["subject"]), asked["target_true"]["str"], asked["target_new"]["str"])
    for asked in (record["requested_rewrite"] for record in RECORDS)
]
QUESTIONS = [question for question, _, _ in FACTS]
STRINGS = pa.list_(pa.string())
TASK_TABLES = {
    "mmlu": {
        "question": pa.array(QUESTIONS, pa.string()),
        "subject": pa.array(["world"] * len(FACTS), pa.string()),
        "choices": pa.array([[right, wrong] if i % 2 == 0 else [wrong, right] for i, (_, right, wrong) in enumerate(FACTS)], STRINGS),
        "answer": pa.array([i % 2 for i in range(len(FACTS))], pa.int64()),
    },
    "arc": {
        "id": pa.array([f"own_{i}" for i in range(len(FACTS))], pa.string()),
        "question": pa.array(QUESTIONS, pa.string()),
        "choices": pa.array(
            [{"text": [wrong, right], "label": ["1", "2"]} for _, right, wrong in FACTS], pa.struct([("text", STRINGS), ("label", STRINGS)])
        ),
        "answerKey": pa.array(["2"] * len(FACTS), pa.string()),
    },
    "gsm8k": {
        "question": pa.array(QUESTIONS, pa.string()),
        "answer": pa.array([f"It is so.\n#### {right}" for _, right, _ in FACTS], pa.string()),
    },
    "sst2": {
        "idx": pa.array(range(len(FACTS)), pa.int32()),
        "sentence": pa.array(QUESTIONS, pa.string()),
        "label": pa.array([i % 2 for i in range(len(FACTS))], pa.int64()),
    },
}
TASKS.mkdir(parents=True, exist_ok=True)
for name, columns in TASK_TABLES.items():
    pq.write_table(pa.table(columns), TASKS / f"{name}.parquet", compression="snappy", row_group_size=8)
