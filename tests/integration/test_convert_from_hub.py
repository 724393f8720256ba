"""Conversion of a repository on the Hub, by the command in a fresh process."""

import os
import subprocess
import sys

from rsmclip.hub.convert_openclip import convert_openclip
from tests.hub_server import HubServer
from tests.openclip_by_hand import write_openclip


def convert(source, output, endpoint, tmp_path):
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    environment.pop("HF_HUB_OFFLINE", None)
    command = [sys.executable, "-m", "rsmclip.hub", "convert-openclip", source, str(output)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=200)


def test_a_hub_id_converts_like_its_folder(tmp_path):
    write_openclip(tmp_path / "source")
    (tmp_path / "source" / "large_unrelated_file.onnx").write_bytes(b"0" * 1000)
    with HubServer({"lab/clip": tmp_path / "source"}) as server:
        run = convert("lab/clip", tmp_path / "from_hub", server.endpoint, tmp_path)
        assert run.returncode == 0, run.stderr
        unknown = convert("lab/other", tmp_path / "no", server.endpoint, tmp_path)
    convert_openclip(str(tmp_path / "source"), tmp_path / "local")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "from_hub" / name).read_bytes() == (tmp_path / "local" / name).read_bytes()
    assert "base_model: lab/clip" in (tmp_path / "from_hub" / "README.md").read_text()
    assert not list((tmp_path / "home").rglob("large_unrelated_file.onnx"))

    assert unknown.returncode == 2 and unknown.stderr.splitlines()[-1].startswith("error: ")
    assert "Traceback" not in unknown.stderr and not (tmp_path / "no").exists()
