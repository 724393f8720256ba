"""The parts of the package import each other in one direction only."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.version import Version

ROOT = Path(__file__).parent.parent
REMOTE_CODE = {"configuration_rsmclip", "modeling_rsmclip", "image_processing_rsmclip"}
MAY_IMPORT = {  # part: the parts that it may import beside itself
    "core": {"image_processing_rsmclip"},
    "models": REMOTE_CODE | {"core"},
    "data": {"core"},
    "training": REMOTE_CODE | {"core", "models", "data"},
    "eval": REMOTE_CODE | {"core", "models", "data"},
    "hub": REMOTE_CODE | {"core", "models", "data", "eval"},
    "train": REMOTE_CODE | {"core", "models", "data", "training", "eval", "hub"},
}
TOP = {"train", "outcome"}  # files of the part "train"
SELF_CONTAINED = ["hub/handler.py", "hub/snippet_process.py", "eval/index.py"]
SELF_CONTAINED += [f"{name}.py" for name in sorted(REMOTE_CODE)]
SELF_CONTAINED += [str(path.relative_to(ROOT)) for path in sorted((ROOT / "hub" / "space").glob("*.py"))]
CLASSES = {"RSMCLIPConfig", "RSMCLIPImageProcessor", "RSMCLIPModel"}  # that `from rsmclip import …` gives


def imported_parts(path: Path) -> set[str]:
    """The parts of the package that a file imports, at its top or inside of functions."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            parts |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("rsmclip.")}
        elif isinstance(node, ast.ImportFrom) and node.module == "rsmclip":
            names = {alias.name for alias in node.names}
            parts |= names - CLASSES | ({"modeling_rsmclip"} if names & CLASSES else set())
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("rsmclip."):
            parts.add(node.module.split(".")[1])
    return parts


def files_of(part: str) -> list[Path]:
    """The Python files of a part."""
    return [ROOT / f"{name}.py" for name in sorted(TOP)] if part == "train" else sorted((ROOT / part).rglob("*.py"))


@pytest.mark.parametrize("part", MAY_IMPORT)
def test_imports_go_one_way(part):
    files = files_of(part)
    assert files
    for path in files:
        found = imported_parts(path) - (TOP if part == "train" else {part})
        assert found <= MAY_IMPORT[part], f"{path.relative_to(ROOT)} imports {sorted(found - MAY_IMPORT[part])}"


@pytest.mark.parametrize("name", SELF_CONTAINED)
def test_what_travels_to_the_hub_imports_nothing_of_this_package(name):
    assert not imported_parts(ROOT / name)


def test_an_index_is_read_with_numpy_alone():
    tree = ast.parse((ROOT / "eval" / "index.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in names} - sys.stdlib_module_names == {"numpy"}


def test_the_light_ground_floor_imports_the_image_processor_only_inside_functions():
    for path in files_of("core"):
        top = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.ImportFrom)]
        assert not [node.module for node in top if (node.module or "").startswith("rsmclip.image_processing")]


def test_the_oldest_suite_pins_the_lower_bounds_of_the_hugging_face_libraries():
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints-oldest.txt").read_text(), flags=re.MULTILINE))
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    bounds = dict(dependency.split(">=") for dependency in dependencies)
    for name in ("accelerate", "datasets", "evaluate", "huggingface_hub", "peft", "safetensors", "transformers"):
        assert Version(pins[name]) == Version(bounds[name]), name
