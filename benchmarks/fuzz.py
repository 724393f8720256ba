r"""Feed damaged and hostile files to each reader of this project.

    python -m rsmclip.benchmarks.fuzz [--readers NAME …] [--inputs 2000] [--seed 0] [--output FILE.json]

A reader gets a valid folder in which one file is changed, through the function that the commands call. It may accept
the file or refuse it with the one-line error of the commands. Everything else is a fault: another exception, a file
written or removed outside the folder, a program started, a host called, more than `LONGEST` seconds or more than
`MOST_MEMORY` bytes. The bytes of half of the inputs are changed at random; the values in the other half, where the
format has values. The same seed gives the same inputs.

A child process reads the inputs, so that a crash of a decoder is found too. Its temporary files and caches are in one
folder, and everything else is outside.
"""

import argparse
import faulthandler
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import psutil

from rsmclip.benchmarks.fuzz_inputs import change_file
from rsmclip.benchmarks.fuzz_readers import READERS, Reader
from rsmclip.benchmarks.machine import describe_run
from rsmclip.core.command_line import OneLineParser, positive, run_command
from rsmclip.core.errors import UserError
from rsmclip.core.files import write_whole

LONGEST = 10  # seconds of processor time for one input
HANGS = 600  # seconds after which the process is ended
MOST_MEMORY = 1 << 30  # bytes above those of the process before the first input
FAULTS_SHOWN = 20


class Watch:
    """Records what a process does outside of a folder, with Python's audit hook, which cannot be removed again."""

    PROGRAMS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "socket.connect", "pickle.find_class")
    CHANGES = (
        "os.mkdir",
        "os.rename",
        "os.remove",
        "os.rmdir",
        "os.link",
        "os.symlink",
        "os.truncate",
        "shutil.rmtree",
    )

    def __init__(self, folder: Path):
        self.folder = str(folder.resolve())
        self.found: list[str] = []
        sys.addaudithook(self.hook)

    def hook(self, event: str, arguments: tuple) -> None:
        if event in self.PROGRAMS:
            self.found.append(f"{event} {arguments[:2]}")
        elif event in self.CHANGES or (event == "open" and writes(*arguments[1:3])):
            path = arguments[0]
            if isinstance(path, str | bytes | os.PathLike) and not self.allows(os.fsdecode(path)):
                self.found.append(f"{event} {path!r}")

    def allows(self, path: str) -> bool:
        # A relative path is in the working directory, which is the folder, or in an open folder that was checked.
        inside = any(Path(os.path.realpath(path)).is_relative_to(place) for place in (self.folder, "/dev", "/proc"))
        return inside or not os.path.isabs(path)


def writes(mode: str | None, flags: int | None) -> bool:
    """Return whether arguments of `open` are for writing: the mode of `open`, or the flags of `os.open`."""
    if isinstance(mode, str):
        return any(letter in mode for letter in "wax+")
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))


def read_inputs(name: str, reader: Reader, inputs: int, seed: int, folder: Path, watch: Watch) -> dict:
    """
    Feed inputs to a reader.

    Returns:
        `dict`: Counts of inputs, `accepted`, `refused` and `faults`; the `slowest` in seconds, the `memory` in bytes
            that the reader added, and examples of faults.
    """
    rng = random.Random(f"{seed} {name}")
    reader.make(folder)
    paths = sorted(path for pattern in reader.changed for path in folder.glob(pattern))
    originals = {path: path.read_bytes() for path in paths}
    reader.read(folder)  # the valid folder must be accepted; this also loads what the reader needs
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is measured from here
    before = psutil.Process().memory_info().rss
    result = {"inputs": inputs, "accepted": 0, "refused": 0, "faults": 0, "slowest": 0.0}
    examples: dict[str, str] = {}
    for number in range(inputs):
        path = paths[number % len(paths)]
        path.write_bytes(change_file(path, originals[path], rng))
        place = f"{name}, input {number} ({path.relative_to(folder)})"
        print(f"\0{place}", end="", flush=True)  # the parent shows the last one if this process dies
        faulthandler.dump_traceback_later(HANGS, exit=True)
        watch.found.clear()
        began = time.process_time()
        try:
            reader.read(folder)
            result["accepted"] += 1
        except reader.refusals as error:
            result["refused"] += 1
            if "\n" in str(error).strip():
                examples.setdefault(f"several lines: {type(error).__name__}", f"{place}: {error}"[:500])
                result["faults"] += 1
        except Exception as error:  # this program looks for every other exception
            last = traceback.extract_tb(error.__traceback__)[-1]
            kind = f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
            examples.setdefault(kind, f"{place}: {traceback.format_exc()[-1500:]}")
            result["faults"] += 1
        seconds = time.process_time() - began
        result["slowest"] = max(result["slowest"], round(seconds, 2))
        if seconds > LONGEST or watch.found:
            examples.setdefault(
                "too long" if not watch.found else watch.found[0], f"{place}: {seconds:.0f} s, {watch.found}"
            )
            result["faults"] += 1
        path.write_bytes(originals[path])
    faulthandler.cancel_dump_traceback_later()
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    result["memory"] = max(0, peak - before)
    if result["memory"] > MOST_MEMORY:
        examples["memory"] = f"{name}: {result['memory']:,} bytes"
        result["faults"] += 1
    return result | {"examples": examples}


def read_in_child(names: Sequence[str], inputs: int, seed: int) -> dict[str, dict]:
    """Return the results by reader, of a child process with a folder, home and caches of its own."""
    with tempfile.TemporaryDirectory() as place:
        folder, results = Path(place).resolve(), Path(place, "results.json")
        own = dict.fromkeys(("HOME", "HF_HOME", "TMPDIR", "XDG_CACHE_HOME", "MPLCONFIGDIR"), place)
        command = [sys.executable, "-m", "rsmclip.benchmarks.fuzz", "--child", place, "--readers", *names]
        command += ["--inputs", str(inputs), "--seed", str(seed)]
        environment = os.environ | own | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
        done = subprocess.run(command, env=environment, capture_output=True, cwd=folder)
        if done.returncode:
            last, notes = done.stdout.rpartition(b"\0")[2].decode(), done.stderr.decode(errors="replace")[-3000:]
            raise UserError(f"the process ended with status {done.returncode} at {last}: {notes}")
        return json.loads(results.read_bytes())


def run_child(folder: Path, names: Sequence[str], inputs: int, seed: int) -> None:
    """Read all inputs in this process, and write `results.json`."""
    watch, results = Watch(folder), {}
    for name in names:
        (folder / name).mkdir()
        results[name] = read_inputs(name, READERS[name], inputs, seed, folder / name, watch)
    (folder / "results.json").write_text(json.dumps(results))


def run(arguments: argparse.Namespace) -> None:
    """Run the readers one by one, print a line for each, and fail if there is a fault."""
    if arguments.child:
        run_child(arguments.child, arguments.readers, arguments.inputs, arguments.seed)
        return
    command = f"python -m rsmclip.benchmarks.fuzz --inputs {arguments.inputs} --seed {arguments.seed}"
    record, faults = describe_run(command, "pillow", "pyarrow", "safetensors", "datasets"), 0
    for name in arguments.readers:
        result = read_in_child([name], arguments.inputs, arguments.seed)[name]
        for example in list(result.pop("examples").items())[:FAULTS_SHOWN]:
            print(": ".join(example))
        faults += result["faults"]
        record.setdefault("readers", {})[name] = result
        print(f"{name}: {result}", flush=True)
    if arguments.output:
        write_whole(arguments.output, json.dumps(record, indent=1) + "\n")
    if faults:
        raise UserError(f"{faults:,} inputs were neither accepted nor refused in one line")


def make_parser() -> argparse.ArgumentParser:
    parser = OneLineParser(prog="python -m rsmclip.benchmarks.fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS), metavar="NAME")
    parser.add_argument("--inputs", type=positive, default=2000, help="inputs of each reader; default: 2000")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    chosen = make_parser().parse_args()
    run_command(lambda: run(chosen), "python -m rsmclip.benchmarks.fuzz")
