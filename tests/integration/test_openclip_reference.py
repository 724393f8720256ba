"""An extra where OpenCLIP's own reference lies beside the project: its outputs, in a fresh process, within 1e-5.

The proof that runs everywhere is in `tests/test_convert_openclip.py`, against OpenCLIP's formulas in float64;
`benchmarks/openclip_reference.py` makes such a reference of the full size.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

REFERENCE = Path(__file__).parents[3] / "shared" / "openclip_reference"
SCRIPT = """
import json, sys
sys.modules["rsmclip"] = None
import torch
from safetensors.torch import load_file
from transformers import AutoModel

folder, expected = sys.argv[1], load_file(sys.argv[2])
model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
with torch.no_grad():
    output = model(expected["input_ids"], expected["pixel_values"], return_loss=True)
found = {"image_features": output.vision_model_output.pooler_output, "contrastive_loss": output.loss[None],
         "text_features": output.text_model_output.pooler_output, "logits_per_image": output.logits_per_image}
features = ("image_features", "text_features")
expected_units = {k: torch.nn.functional.normalize(expected[k], dim=-1) for k in features}
norms = {k: float(expected[k].norm(dim=-1).mean()) for k in features}
for k in features:
    if abs(norms[k] - 1) < 1e-3:  # the reference may hold unit vectors
        found[k] = torch.nn.functional.normalize(found[k], dim=-1)
print(json.dumps({name: float((found[name] - expected[name]).abs().max()) for name in found}))
"""


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="an extra: OpenCLIP's reference does not lie beside the project")
def test_outputs_are_openclips(tmp_path):
    command = [sys.executable, "-m", "rsmclip.hub", "convert-openclip", str(REFERENCE), str(tmp_path / "model")]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    run = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tmp_path / "model"), str(REFERENCE / "expected.safetensors")],
        capture_output=True, text=True, cwd=tmp_path, timeout=200,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    differences = json.loads(run.stdout.splitlines()[-1])
    assert max(differences.values()) <= 1e-5, differences
