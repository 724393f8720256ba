"""Changes of files for `fuzz.py`: of bytes at random, and of the values in JSON, safetensors headers and tables."""

import json
import random
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

# Pieces of text that are known to break readers.
PIECES = [
    *(
        b"\0",
        b"\r",
        b'"',
        b"'",
        b",",
        b"\n\n",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\xe2\x80\xa8",
        b"\xed\xa0\x80",
        b"\\ud800",
    ),
    *(b"[" * 20_000, b"{" * 20_000, b'{"a":' * 20_000, b"9" * 5_000, b"x" * 1_000_000),
    *(b"1e999", b"-1", b"NaN", b"-Infinity", b"18446744073709551616", b"null", b"true", b"[]", b"{}"),
    *(
        b"../../../etc/passwd",
        b"/etc/passwd",
        b"file:///etc/passwd",
        b"http://127.0.0.1:9/",
        b"~",
        b"%s%n",
        b"{0.__class__}",
    ),
    *(
        b"!!python/object/apply:os.system [touch /tmp/fuzzed]",
        b"&a [*a, *a]",
        b"*b",
        b"<<: *a",
        b"? ",
        b"- - - -",
        b": ",
    ),
]
VALUES: list[Any] = [  # in place of a value of JSON
    *(
        None,
        True,
        -1,
        0,
        1.5,
        1e308,
        10**30,
        float("nan"),
        float("inf"),
        "",
        " ",
        "\0",
        "\ud800",
        "../../x",
        "/etc/passwd",
    ),
    *([], [[]], {}, {"a": {}}, [None], ["a", 1], "x" * 100_000, "\u202e\x1b[31m", [0] * 10_000, 2**31, 2**63),
]


def change_bytes(content: bytes, rng: random.Random) -> bytes:
    """Change a few places of a file: bits, cuts, repetitions, numbers, and pieces that break readers."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        start = rng.randrange(len(changed) + 1)
        stop = min(len(changed), start + rng.choice((1, 4, 50, len(changed))))
        match rng.randrange(6):
            case 0:
                for place in range(start, min(stop, start + 8)):
                    changed[place] ^= 1 << rng.randrange(8)
            case 1:
                del changed[start:stop]
            case 2:
                changed[start:start] = changed[start:stop] * rng.choice((1, 3))
            case 3:
                changed[start : start + 4] = rng.randbytes(4)
            case 4:
                changed[start : rng.choice((start, stop))] = rng.choice(PIECES)
            case 5:
                numbers = [match.span() for match in re.finditer(rb"\d+", changed)]
                if numbers:
                    start, stop = rng.choice(numbers)
                    changed[start:stop] = rng.choice(
                        (b"0", b"-1", b"99999999999999999999", b"1e999", b"65536", b"2.5")
                    )
    return bytes(changed)


def change_value(value: Any, rng: random.Random) -> Any:
    """Return a value of JSON with one part of it replaced, removed, renamed or repeated."""
    if not value or not isinstance(value, dict | list) or rng.random() < 0.15:
        return rng.choice(VALUES)
    if isinstance(value, list):
        place, changed = rng.randrange(len(value)), list(value)
        if rng.random() < 0.2:
            return changed[:place] + changed[place + 1 :] if rng.random() < 0.5 else changed * 2
        changed[place] = change_value(changed[place], rng)
        return changed
    name, changed = rng.choice(list(value)), dict(value)
    match rng.randrange(8):
        case 0:
            del changed[name]
        case 1:
            changed[rng.choice(("", "\0", "x" * 1000, name.upper(), "\ud800"))] = changed.pop(name)
        case _:
            changed[name] = change_value(changed[name], rng)
    return changed


def change_file(path: Path, content: bytes, rng: random.Random) -> bytes:
    """Return the content of a file after a change that fits its format."""
    if rng.random() < 0.5:
        return change_bytes(content, rng)
    if path.suffix == ".json":
        return json.dumps(change_value(json.loads(content), rng)).encode()
    if path.suffix == ".jsonl":
        lines = content.splitlines()
        place = rng.randrange(len(lines))
        lines[place] = json.dumps(change_value(json.loads(lines[place]), rng)).encode()
        return b"\n".join(lines) + b"\n"
    if path.suffix == ".safetensors":
        length = int.from_bytes(content[:8], "little")
        header = json.dumps(change_value(json.loads(content[8 : 8 + length]), rng)).encode()
        return len(header).to_bytes(8, "little") + header + content[8 + length :]
    if path.suffix == ".parquet":
        return change_table(content, rng)
    return change_bytes(content, rng)


def change_table(content: bytes, rng: random.Random) -> bytes:
    """Return a parquet file with a column that is missing, doubled, of another type, or with other values."""
    table = pq.read_table(pa.BufferReader(content))
    place = rng.randrange(table.num_columns)
    name, column = table.column_names[place], table.column(place)
    if rng.random() < 0.2:
        table = table.remove_column(place)
    elif rng.random() < 0.2:
        table = table.append_column(name, column)
    else:
        rows = column.to_pylist()
        row = rng.randrange(len(rows))
        rows[row] = change_value(rows[row], rng)
        if rng.random() < 0.3:
            rows = [rng.choice(VALUES)] * len(rows)
        try:
            changed = pa.array(rows)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):  # Arrow has no type for this mixture
            changed = pa.array([str(row).encode("utf-8", "replace") for row in rows])
        table = table.set_column(place, name, changed)
    if rng.random() < 0.5:
        table = table.replace_schema_metadata(None)  # the types of `datasets`
    file = pa.BufferOutputStream()
    try:
        pq.write_table(table, file)
    except pa.ArrowNotImplementedError:  # parquet has no struct without fields
        return change_bytes(content, rng)
    return file.getvalue().to_pybytes()
