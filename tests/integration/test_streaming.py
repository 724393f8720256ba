"""Streams from a local server with the Hub's protocol, and a training run on a stream, in processes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import SHARDS, TINY_RUN
from tests.hub_server import Fault, HubServer

ROOT = Path(__file__).parents[2]
STEPS = 18
# Prints the rows of a step for each byte of its input. Ends with the error of a shard that cannot be read.
READ = """
import sys, time
from pathlib import Path
from torch.utils.data import DataLoader, Dataset

sleep = time.sleep
time.sleep = lambda seconds: sleep(min(seconds, 0.01))  # the waits before new tries, ours and the Hub's client's

from rsmclip.core.errors import UserError
from rsmclip.training.batches import StepSampler
from rsmclip.training.streaming import follow, open_splits

class Rows(Dataset):
    def __getitem__(self, index):
        try:
            return corpus[index[1]]["image_id"], len(corpus[index[1]]["image"]["bytes"])
        except UserError as error:
            return error

name, cache, first_step = sys.argv[1:]
corpus, others = open_splits(name, "train", ["val"], ["en"], folder=Path(cache), shuffle_buffer=10, seed=0)
print(len(others["val"]), flush=True)
sampler = StepSampler(len(corpus), 6, 18, int(first_step), order=corpus.order)
sys.stdin.read(1)
for batch in follow(DataLoader(Rows(), batch_sampler=sampler, collate_fn=list, num_workers=1), corpus):
    if errors := [row for row in batch if isinstance(row, UserError)]:
        sys.exit(str(errors[0]))
    print(batch, flush=True)
    sys.stdin.read(1)
"""


def start(name: object, cache: Path, endpoint: str = "http://127.0.0.1:9", first_step: int = 0) -> subprocess.Popen:
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": f"{cache}-home"}
    arguments = [sys.executable, "-c", READ, str(name), str(cache), str(first_step)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(arguments, env=environment, text=True, start_new_session=True, **pipes)


def go_on(process: subprocess.Popen) -> tuple[list[str], str]:
    printed, errors = process.communicate("." * (STEPS + 1), timeout=100)
    return printed.splitlines(), errors


@pytest.fixture(scope="module")
def padded_corpus(sharded_corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("padded") / "corpus"
    shutil.copytree(sharded_corpus, folder)
    path, rng = next(folder.glob("data/train-00000-*")), np.random.default_rng(0)
    table = pq.read_table(path)
    images = [{"bytes": image["bytes"] + rng.bytes(100_000), "path": None} for image in table["image"].to_pylist()]
    column = table.schema.field("image")
    pq.write_table(table.set_column(0, column, pa.array(images, column.type)), path)
    return folder


@pytest.fixture(scope="module")
def expected(padded_corpus, tmp_path_factory) -> list[str]:
    lines, errors = go_on(start(padded_corpus, tmp_path_factory.mktemp("local") / "cache"))
    assert lines[0] == "18" and len(lines) == 1 + STEPS, errors
    return lines[1:]


def test_a_stream_from_the_hub_outlives_faults_and_continues_after_an_outage(padded_corpus, expected, tmp_path):
    last = f"train-{SHARDS.index(5):05d}"
    with HubServer({"datasets/lab/corpus": padded_corpus}) as server:
        process = start("lab/corpus", tmp_path / "cache", server.endpoint)
        assert process.stdout.readline() == "18\n", process.communicate()[1]
        sizes = {path.name: path.stat().st_size for path in padded_corpus.glob("data/train-00000-*")}
        footers = {Path(path).name: size for path, size in server.sent.items() if "/train-00000-" in path}
        assert footers.keys() == sizes.keys() and sum(sizes.values()) > 700_000
        assert sum(footers.values()) < 80_000  # nothing else is read before training
        server.faults += [Fault("GET /datasets/.*/data/train-", 503, times=9), Fault(f"GET /datasets/.*/{last}", 503)]
        done, errors = go_on(process)
        assert process.returncode == 1 and 0 < len(done) < STEPS
        told = errors.splitlines()[-1]
        assert re.search(rf"hf://datasets/lab/corpus@.*/data/{last}-.* 5 tries .*503.*--resume_from_checkpoint", told)

        server.faults.clear()
        process = start("lab/corpus", tmp_path / "cache", server.endpoint, first_step=len(done))
        assert process.stdout.readline() == "18\n", process.communicate()[1]
        process.stdin.write("...")
        process.stdin.flush()
        done += [process.stdout.readline().strip() for _ in range(3)]
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        lines, errors = go_on(start("lab/corpus", tmp_path / "cache", server.endpoint, first_step=len(done)))
        assert done + lines[1:] == expected, errors


def test_a_run_on_a_stream_logs_the_same_losses_for_any_number_of_workers_and_leaves_no_shard(
    sharded_corpus, tokenizer, tmp_path
):
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    data = {"dataset": str(sharded_corpus), "tokenizer": str(tmp_path / "tokenizer"), "languages": ["en", "ko"]}
    fields = {"streaming": True, "shuffle_buffer": 16, "benchmarks": ["demo"], "max_train_steps": 8}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(TINY_RUN | data | fields))
    unchanged = "--learning_rate 1e-30 --best_figure mean_recall --evaluation_steps 1 --early_stop_evaluations 1"
    losses = {}
    for name, options in (("0", "--num_workers 0"), ("2", "--num_workers 2"), ("early stop", unchanged)):
        output = tmp_path / name
        arguments = ["--config", tmp_path / "config.yaml", "--output_dir", output, *options.split()]
        environment = os.environ | {"HF_DATASETS_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, str(ROOT / "train.py"), *map(str, arguments)]
        run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, timeout=100)
        assert run.returncode == 0, run.stderr
        log = map(json.loads, (output / "train_log.jsonl").read_text().splitlines())
        losses[name] = [record["loss"] for record in log if "loss" in record]
        assert not list((tmp_path / "cache" / "rsmclip_streams").iterdir())
    assert len(losses["0"]) == 8 and losses["0"] == losses["2"]
    assert len(losses["early stop"]) == 2
