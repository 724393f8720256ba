"""A run records the revisions of its corpus and model on the Hub. The Hub is a local server here."""

import json
import os
import subprocess
import sys

from tests.hub_server import HubServer

RECORD = """
import json, sys
from pathlib import Path
from huggingface_hub import HfApi, hf_hub_download
from rsmclip.data.card import recorded_facts
from rsmclip.data.push import push_corpus
from rsmclip.data.schema import hub_revision, load_corpus
from rsmclip.models.folder import fetched_revision

push_corpus(Path(sys.argv[1]), "lab/tiny")
HfApi().create_repo("lab/base")
HfApi().upload_file(path_or_fileobj=b"{}", path_in_repo="config.json", repo_id="lab/base")
absent = [fetched_revision("lab/base"), hub_revision(load_corpus(sys.argv[1])["test"])]
hf_hub_download("lab/base", "config.json")
revision = hub_revision(load_corpus("lab/tiny")["test"])
print(json.dumps({
    "absent": absent,
    "commits": [HfApi().dataset_info("lab/tiny").sha, HfApi().model_info("lab/base").sha],
    "found": [revision, fetched_revision("lab/base")],
    "facts": recorded_facts("lab/tiny", revision),
}))
"""


def test_revisions_and_the_card_of_the_corpus_are_those_of_the_hub(corpus_folder, tmp_path):
    with HubServer(root=tmp_path / "hub") as server:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_ENDPOINT": server.endpoint, "HF_HUB_DISABLE_XET": "1", "HF_TOKEN": "a token"}
        environment["HF_HOME"] = str(tmp_path / "home")
        command = [sys.executable, "-c", RECORD, str(corpus_folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)
    assert done.returncode == 0, done.stderr
    recorded = json.loads(done.stdout.splitlines()[-1])
    assert recorded["found"] == recorded["commits"] and recorded["absent"] == [None, None]
    assert recorded["facts"]["license"] == "mit"
    assert "| demo | MIT |" in recorded["facts"]["sources"]
