"""The full-size run: its stages on the tiny model, what a second call repeats, and how a process is measured."""

import json
import sys

import pytest

from rsmclip.benchmarks import full_size
from rsmclip.benchmarks.processes import measured
from rsmclip.core.errors import UserError

FIFTY_MEGABYTES = """
import subprocess, sys, time
held = b"x" * 50_000_000
if sys.argv[1:]:
    subprocess.run([sys.executable, "-c", sys.argv[1]])
time.sleep(1)
"""


@pytest.fixture
def options(tokenizer, tmp_path):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    given = ["no_self_distillation", "--precision", "no", "--tokenizer", str(tmp_path / "tokenizer"), "--tiny"]
    places = ["--output", str(tmp_path / "result.json"), "--folder", str(tmp_path / "work")]
    return full_size.make_parser().parse_args([*given, *places])


def test_an_interrupted_run_ends_like_the_whole_run(options, monkeypatch):
    make_stages, wanted = full_size.make_stages, ("dry_run", "training", "interrupted", "resumed")
    monkeypatch.setattr(full_size, "make_stages", lambda config: {name: make_stages(config)[name] for name in wanted})
    with pytest.raises(SystemExit, match="0"):
        full_size.run(options)
    record = json.loads(options.output.read_text())
    assert options.folder.is_dir() and not list(options.folder.glob("no_*")) and str(options.folder) not in str(record)
    stages = record["runs"]["no_self_distillation no"]
    assert stages["resumed"]["equal_weights"] and stages["resumed"]["equal_losses"]
    assert stages["training"]["disk_bytes"] > stages["training"]["checkpoint_bytes"] > 0
    assert all(stages[name]["seconds"] > 0 and stages[name]["peak_bytes"] > 1e8 for name in wanted)


def test_a_second_call_continues_after_the_last_stage_with_a_result(options, monkeypatch, capsys):
    ran = []

    def run_stage(name: str, *_: object) -> dict:
        ran.append(name)
        if name == "evaluation" and ran.count(name) == 1:
            raise UserError("no space left")
        found = {"seconds": 1.2, "peak_bytes": 2e9, "disk_bytes": 6.6e9, "equal_weights": True, "equal_losses": False}
        return found | {"disk": "6.7 GB (checkpoints)"}

    monkeypatch.setattr(full_size, "run_stage", run_stage)
    with pytest.raises(UserError, match="no space left"):
        full_size.run(options)
    with pytest.raises(SystemExit, match="1"):  # the losses of the resumed run differ
        full_size.run(options)
    before = ["dry_run", "training", "interrupted", "resumed", "card"]
    assert ran == [*before, "evaluation", "evaluation", "export_openclip", "export_onnx"]
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| no_self_distillation no |") and row.endswith("| 6.7 GB, 6.6 GB | no |")
    assert row.count("1 s, 2.0 GB") == 8
    record = json.loads(options.output.read_text())
    options.output.write_text(json.dumps(record | {"runs": {"lora no": {"dry_run": {}}} | record["runs"]}))
    with pytest.raises(SystemExit):
        full_size.run(options)
    assert capsys.readouterr().out.splitlines()[2:] == [row]  # an unfinished run of another call has no row
    options.tiny = False
    with pytest.raises(UserError, match="other size"):
        full_size.run(options)


def test_memory_is_that_of_all_processes_and_an_unexpected_status_is_an_error(tmp_path):
    command, printed = [sys.executable, "-c", FIFTY_MEGABYTES], tmp_path / "printed.txt"
    found = measured([*command, FIFTY_MEGABYTES], printed)  # a process and its child
    assert 100e6 < found["peak_bytes"] < 180e6 and found["seconds"] >= 2
    assert measured(command, printed, stop_when=lambda: True, status=-15)["peak_bytes"] < 90e6
    with pytest.raises(UserError, match="status 1, not 0: ZeroDivisionError"):
        measured([sys.executable, "-c", "1 / 0"], printed)
