"""What travels to the Hub as code does nothing but compute: held under Python's audit hook, and by reading the source."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import rsmclip
from rsmclip.hub.folder import save_model_folder

ROOT = Path(rsmclip.__file__).parent
REMOTE = ("configuration_rsmclip.py", "modeling_rsmclip.py", "image_processing_rsmclip.py")

# Loads a model folder as anybody does, from a process that does not know the repository, then runs the model. Everything
# that is opened, started or connected to is printed once the libraries and their own files are loaded.
WATCHED = """
import json, os, sys
sys.modules["rsmclip"] = None  # importing the package is an error here
import numpy, torch
from PIL import Image
import transformers.models.clip.image_processing_pil_clip, transformers.models.clip.modeling_clip
import transformers.models.xlm_roberta.modeling_xlm_roberta
from transformers.dynamic_module_utils import get_class_from_dynamic_module

folder, seen = sys.argv[1], []
WATCHED = ("open", "os.", "socket.", "subprocess.", "shutil.", "ctypes.dlopen", "urllib.", "http.", "exec", "glob.", "tempfile.")
HARMLESS = ("os.listdir", "os.scandir")

def watch(event, arguments):
    if event.startswith(WATCHED) and event not in HARMLESS:
        seen.append([event, *[str(argument)[:300] for argument in arguments]])

classes = ["configuration_rsmclip.RSMCLIPConfig", "modeling_rsmclip.RSMCLIPModel",
           "image_processing_rsmclip.RSMCLIPImageProcessor"]
for name in classes:
    get_class_from_dynamic_module(name, folder)  # copies the files to where modules are imported from
places = [sys.modules[name].__file__ for name in sys.modules if name.startswith("transformers_modules.")
          and getattr(sys.modules[name], "__file__", None)]
for name in [name for name in sys.modules if name.startswith("transformers_modules.")]:
    del sys.modules[name]
described = json.load(open(folder + "/config.json"))

sys.addaudithook(watch)
sys.path.insert(0, os.path.dirname(os.path.dirname([place for place in places if "modeling" in place][0])))
import importlib
package = os.path.basename(os.path.dirname([place for place in places if "modeling" in place][0]))
modules = [importlib.import_module(package + "." + name.split(".")[0]) for name in classes]
config = modules[0].RSMCLIPConfig(**{key: described[key] for key in sys.argv[2].split()})
model = modules[1].RSMCLIPModel(config).eval()
processor = modules[2].RSMCLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
images = [Image.new("RGB", (40, 50)), numpy.zeros((9, 9), dtype="uint16"), Image.new("P", (9, 9))]
pixels = processor(images, return_tensors="pt")["pixel_values"]
ids = torch.tensor([[0, 5, 2]] * 3)
loss = model(input_ids=ids, pixel_values=pixels, attention_mask=torch.ones_like(ids), return_loss=True).loss
loss.backward()
model.get_prototype_logits(pixels)
SABOTAGE
print(json.dumps({"seen": seen, "places": places, "prefix": [sys.prefix, sys.base_prefix], "loss": float(loss.detach())}))
"""
