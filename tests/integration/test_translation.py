"""`rsmclip data translate` as a process: killed and started again, twice at once, distributed over two processes."""

import json
import os
import re
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
    """A folder with a corpus in English and a model that memorized its captions in two languages."""
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


def run(place: Path, arguments: list[str], **variables: str) -> subprocess.CompletedProcess:
    done = subprocess.run(arguments, env=environment(place, **variables), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    return done


def outcome(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "journal")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def journal_lines(folder: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in folder.glob("journal/*.jsonl"))


@pytest.fixture(scope="module")
def whole(place) -> Path:
    """The output of an undisturbed run."""
    done = run(place, command(place, place / "whole"))
    assert re.search("^16 .* 8 .* 2 .* 16 ", done.stdout, re.MULTILINE)
    assert "| ko | 8 | 8 | 100.0 |" in done.stdout
    return place / "whole"


def test_every_caption_is_translated(whole):
    lines = [json.loads(line) for line in (whole / "captions.jsonl").read_text("utf-8").splitlines()]
    expected = [{code: row[code] for code in ("en", *LANGUAGES)} for row in CAPTIONS]
    assert lines == sorted(expected, key=lambda row: row["en"])


def test_after_a_kill_only_missing_sentences_are_translated_and_the_outcome_is_equal(place, whole):
    output = place / "killed"
    with subprocess.Popen(command(place, output), env=environment(place), stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 100
        while journal_lines(output) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    before = journal_lines(output)
    assert 3 <= before < 8 and not (output / "captions.jsonl").exists()
    run(place, command(place, output))
    assert journal_lines(output) == 8 and outcome(output) == outcome(whole)


def test_two_runs_at_once_have_the_outcome_of_one(place, whole):
    both = [
        subprocess.Popen(command(place, place / "twice"), env=environment(place), stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    errors = [process.communicate(timeout=200)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert outcome(place / "twice") == outcome(whole)


def test_processes_share_the_sentences(place, whole):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = run(place, command(place, place / "shared", *launcher))
    journals = [path.read_bytes().count(b"\n") for path in place.glob("shared/journal/*.jsonl")]
    assert journals == [4, 4] and outcome(place / "shared") == outcome(whole)
    assert len(re.findall("^16 ", done.stdout, re.MULTILINE)) == 1


def test_the_record_has_the_commit_of_a_model_on_the_hub(place, whole):
    with HubServer({"lab/translator": place / "model"}) as server:
        from_hub = command(place, place / "from_hub", model="lab/translator")
        run(place, from_hub, HF_ENDPOINT=server.endpoint, HF_HUB_DISABLE_XET="1")
    facts = json.loads((place / "from_hub" / "translation.json").read_text("utf-8"))
    assert facts["model"] == "lab/translator" and len(facts["revision"]) == 40
    assert (place / "from_hub" / "captions.jsonl").read_bytes() == (whole / "captions.jsonl").read_bytes()
