"""`python -m rsmclip.data translate` as users start it: killed and started again, twice at once, in two processes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from rsmclip.data.build import build_corpus
from rsmclip.data.sources import open_source
from tests.captions import CAPTIONS
from tests.hub_server import HubServer
from tests.translators import make_chat_model

LANGUAGES = ("pt", "ko")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A built corpus in English, and a model that knows its captions in two languages by heart."""
    root = tmp_path_factory.mktemp("translation")
    (root / "made").mkdir()
    lines = []
    for number, row in enumerate(CAPTIONS):
        Image.new("RGB", (5, 5), (number, 0, 0)).save(root / "made" / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "captions": [row["en"].replace(".", " ."), row["en"]]}))
    (root / "made" / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    build_corpus([open_source("imagefolder", str(root / "made"))], root / "corpus")
    make_chat_model(root / "model", [(row["en"], code, row[code]) for row in CAPTIONS for code in LANGUAGES])
    return root


def command(place: Path, output: Path, *before: str, model: str | None = None) -> list[str]:
    options = ["--model", model or str(place / "model"), "--languages", *LANGUAGES, "--batch_size", "2"]
    module = [*(before or (sys.executable,)), "-m", "rsmclip.data"]
    return [*module, "translate", str(place / "corpus"), *options, "--output", str(output)]


def environment(place: Path, **more: str) -> dict[str, str]:
    home = {"HF_HOME": str(place / "home"), "OMP_NUM_THREADS": "1"}
    return {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"} | home | more


def outcome(folder: Path) -> dict[str, bytes]:
    """All that a translation leaves but its journal."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "journal")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def journal_lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("journal/*.jsonl"))


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """What one run that nothing disturbs leaves."""
    done = subprocess.run(
        command(place, place / "whole"), env=environment(place), capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    assert "16 captions are 8 distinct sentences; into 2 languages: 16 translations" in done.stdout
    assert "| ko | 8 | 8 | 100.0 |" in done.stdout
    return place / "whole"


def test_every_caption_is_translated(whole):
    lines = [json.loads(line) for line in (whole / "captions.jsonl").read_text("utf-8").splitlines()]
    assert lines == sorted(
        ({code: row[code] for code in ("en", *LANGUAGES)} for row in CAPTIONS), key=lambda r: r["en"]
    )


def test_after_a_kill_only_what_is_missing_is_done_and_the_outcome_is_the_same(place, whole):
    output = place / "killed"
    with subprocess.Popen(command(place, output), env=environment(place), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        while journal_lines(output) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    before = journal_lines(output)
    assert 3 <= before < 8 and not (output / "captions.jsonl").exists()
    done = subprocess.run(command(place, output), env=environment(place), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert journal_lines(output) == 8 and outcome(output) == outcome(whole)


def test_two_runs_at_once_leave_what_one_leaves(place, whole):
    both = [
        subprocess.Popen(command(place, place / "twice"), env=environment(place), stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    told = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], told
    assert outcome(place / "twice") == outcome(whole)


def test_processes_share_the_sentences(place, whole):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        command(place, place / "shared", *launcher),
        env=environment(place),
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 0, done.stderr
    journals = [path.read_bytes().count(b"\n") for path in place.glob("shared/journal/*.jsonl")]
    assert journals == [4, 4] and outcome(place / "shared") == outcome(whole)
    assert done.stdout.count("16 captions are") == 1


def test_a_model_on_the_hub_is_known_by_its_commit(place, whole):
    with HubServer({"lab/translator": place / "model"}) as server:
        done = subprocess.run(
            command(place, place / "from_hub", model="lab/translator"), capture_output=True, text=True, timeout=200,
            env=environment(place, HF_ENDPOINT=server.endpoint, HF_HUB_DISABLE_XET="1"),
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads((place / "from_hub" / "translation.json").read_text("utf-8"))
    assert facts["model"] == "lab/translator" and len(facts["revision"]) == 40
    assert (place / "from_hub" / "captions.jsonl").read_bytes() == (whole / "captions.jsonl").read_bytes()
