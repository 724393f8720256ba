"""Compare our model with OpenCLIP at full size, on random weights: embeddings, logits, loss and pixels.

OpenCLIP needs torchvision, so it has its own environment ENV. In ENV, this file imports nothing of this repository.

    ENV/bin/python benchmarks/openclip_reference.py make REFERENCE     # ENV: pip install open_clip_torch
    python benchmarks/openclip_reference.py check REFERENCE MODEL --results FILE.json
    rsmclip hub export-openclip MODEL EXPORTED
    ENV/bin/python benchmarks/openclip_reference.py verify REFERENCE EXPORTED

`make` writes a random model in OpenCLIP's layout, with inputs and OpenCLIP's outputs. `check` converts the model in a
process of its own, measures the peak memory of this process, and compares outputs. `verify` loads an exported folder
into OpenCLIP; if the folder names a text tower of the Hub, the sizes come from the reference instead.
"""

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import load_file, save_file

MODEL_CFG = {  # OpenCLIP's xlm-roberta-base-ViT-B-32, with the sizes of the text tower in a local file
    "embed_dim": 512,
    "vision_cfg": {"image_size": 224, "layers": 12, "width": 768, "patch_size": 32},
    "text_cfg": {"hf_model_name": "text_model", "hf_tokenizer_name": "text_model", "hf_pooler_type": "mean_pooler"},
}
TEXT_CONFIG = {"model_type": "xlm-roberta", "vocab_size": 250002, "max_position_embeddings": 514}
TEXT_CONFIG |= {"type_vocab_size": 1, "layer_norm_eps": 1e-5, "bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2}
TINY = {  # reference of the tests: `make --tiny tests/openclip_reference`
    "embed_dim": 16,
    "vision_cfg": {"image_size": 16, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": MODEL_CFG["text_cfg"],
}
TINY_TEXT = {"vocab_size": 300, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
TINY_TEXT |= {"intermediate_size": 48, "max_position_embeddings": 64}
PREPROCESS_CFG = {
    "mean": [0.5, 0.4, 0.3],
    "std": [0.2, 0.25, 0.3],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
SIZES = [(256, 256), (500, 331), (301, 640), (224, 225), (227, 224), (100, 90), (1024, 512), (1, 1)]


def images() -> list[Image.Image]:
    """Return one random image per entry of `SIZES` (height and width in pixels)."""
    generator = np.random.default_rng(0)
    return [Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in SIZES]


def texts(vocab_size: int) -> torch.Tensor:
    """Return padded token ids of eight texts, shape `(8, 40)`."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, vocab_size, (len(SIZES), 40), generator=generator)
    for row in range(len(SIZES)):
        ids[row, 5 * (row + 1) :] = 1
    return ids


@torch.no_grad()
def outputs(model, pixel_values: torch.Tensor, input_ids: torch.Tensor) -> dict[str, torch.Tensor]:
    image, text = model.encode_image(pixel_values), model.encode_text(input_ids)
    logits = model.logit_scale.exp() * F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T
    targets = torch.arange(len(logits))
    loss = (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2
    return {"image_features": image, "text_features": text, "logits_per_image": logits, "contrastive_loss": loss[None]}


def load_openclip(folder: Path):
    import open_clip

    os.chdir(folder)  # OpenCLIP reads the sizes of the text tower from here
    model, _, preprocess = open_clip.create_model_and_transforms("local-dir:.")
    return model.eval(), preprocess


def make(folder: Path, model_cfg: dict, text_config: dict) -> None:
    from open_clip.model import CustomTextCLIP
    from open_clip.transform import PreprocessCfg, image_transform_v2

    (folder / "text_model").mkdir(parents=True)
    (folder / "text_model" / "config.json").write_text(json.dumps(text_config, indent=2))
    os.chdir(folder)
    torch.manual_seed(0)
    text_cfg = model_cfg["text_cfg"] | {"hf_model_pretrained": False}
    model = CustomTextCLIP(model_cfg["embed_dim"], model_cfg["vision_cfg"], text_cfg)
    save_file(
        {name: tensor.contiguous() for name, tensor in model.state_dict().items()}, "open_clip_model.safetensors"
    )
    described = {"model_cfg": model_cfg, "preprocess_cfg": PREPROCESS_CFG}
    Path("open_clip_config.json").write_text(json.dumps(described, indent=2))
    model, preprocess = load_openclip(Path())
    inputs = {
        "pixel_values": torch.stack([preprocess(image) for image in images()]),
        "input_ids": texts(text_config["vocab_size"]),
    }
    expected = inputs | outputs(model, **inputs)
    for mode in ("longest", "squash"):
        preprocess = image_transform_v2(
            PreprocessCfg(**PREPROCESS_CFG | {"size": model_cfg["vision_cfg"]["image_size"], "resize_mode": mode}),
            is_train=False,
        )
        expected[f"pixels_{mode}"] = torch.stack([preprocess(image) for image in images()])
    save_file({name: tensor.contiguous() for name, tensor in expected.items()}, "expected.safetensors")


def check(reference: Path, folder: Path) -> dict:
    """Convert the reference; return the largest absolute differences in float32 and the memory of the conversion."""
    from transformers import AutoImageProcessor, AutoModel

    from rsmclip.models.openclip import read_image_processor

    command = [sys.executable, "-m", "rsmclip.hub", "convert-openclip", str(reference), str(folder)]
    watched = "import resource, subprocess, sys; code = subprocess.call(sys.argv[1:]); "
    watched += "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss); sys.exit(code)"
    run = subprocess.run([sys.executable, "-c", watched, *command], capture_output=True, text=True, check=True)
    expected = load_file(reference / "expected.safetensors")
    model = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()
    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    pixels = processor(images(), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        output = model(expected["input_ids"], expected["pixel_values"], return_loss=True)
    found = {
        "pixel_values": pixels,
        "image_features": output.vision_model_output.pooler_output,
        "text_features": output.text_model_output.pooler_output,
        "logits_per_image": output.logits_per_image,
        "contrastive_loss": output.loss[None],
    }
    for mode in ("longest", "squash"):
        processor = read_image_processor(PREPROCESS_CFG | {"resize_mode": mode}, 224)
        found[f"pixels_{mode}"] = processor(images(), return_tensors="pt")["pixel_values"]
    checkpoint = (reference / "open_clip_model.safetensors").stat().st_size
    peak = int(run.stdout.split()[-1]) * 1024
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "max_abs_difference": {name: float((found[name] - expected[name]).abs().max()) for name in found},
        "largest_value": {name: float(expected[name].abs().max()) for name in found},
        "checkpoint_bytes": checkpoint,
        "conversion_peak_bytes": peak,
        "conversion_peak_over_checkpoint": round(peak / checkpoint, 3),
    }


def verify(reference: Path, exported: Path) -> dict:
    """Load an exported folder into OpenCLIP and compare outputs and tensors with the reference."""
    theirs, ours = (load_file(path / "open_clip_model.safetensors") for path in (reference, exported))
    identical = theirs.keys() == ours.keys() and all(torch.equal(theirs[name], ours[name]) for name in theirs)
    if not (exported / "text_model").exists():
        described = json.loads((exported / "open_clip_config.json").read_text())
        described["model_cfg"]["text_cfg"]["hf_model_name"] = str(reference / "text_model")
        offline = Path(tempfile.mkdtemp())
        (offline / "open_clip_config.json").write_text(json.dumps(described, indent=2))
        (offline / "open_clip_model.safetensors").symlink_to(exported / "open_clip_model.safetensors")
        exported = offline
    expected = load_file(reference / "expected.safetensors")
    model, preprocess = load_openclip(exported)
    found = outputs(model, expected["pixel_values"], expected["input_ids"])
    found["pixel_values"] = torch.stack([preprocess(image) for image in images()])
    differences = {name: float((found[name] - expected[name]).abs().max()) for name in found}
    return {"tensors": len(ours), "tensors_identical": identical, "max_abs_difference": differences}


def main() -> None:
    """Run one of the three steps and print its measurements."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["make", "check", "verify"])
    parser.add_argument("reference", type=Path)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--tiny", action="store_true", help="make a reference for the tests")
    parser.add_argument("--results", type=Path, help="JSON file for the measurements")
    arguments = parser.parse_args()
    reference, folder = (path and path.resolve() for path in (arguments.reference, arguments.folder))
    if arguments.step == "make":
        sizes = (TINY, TEXT_CONFIG | TINY_TEXT) if arguments.tiny else (MODEL_CFG, TEXT_CONFIG)
        make(reference, *sizes)
        return
    results = arguments.results and arguments.results.resolve()
    measured = (check if arguments.step == "check" else verify)(reference, folder)
    packages = ["torch", "transformers", "safetensors"] if arguments.step == "check" else ["torch", "open_clip_torch"]
    record = {
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {name: version(name) for name in packages},
        **measured,
    }
    print(json.dumps(record, indent=2))
    if results:
        results.write_text(json.dumps(record, indent=2) + "\n")


if __name__ == "__main__":
    main()
