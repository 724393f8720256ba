"""The wheel has all modules and data files and trains outside the checkout; the Dockerfile uses the Makefile."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest

import rsmclip

ROOT = Path(rsmclip.__file__).parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PACKAGES = PROJECT["tool"]["setuptools"]["packages"]
NOT_PACKAGED = ("tests", "examples", "docs", ".venv", ".venv-oldest", "build", "outputs")
CACHES = shutil.ignore_patterns("__pycache__", "*.egg-info", ".*cache")


def folder_of(package: str) -> Path:
    return ROOT / Path(*package.split(".")[1:])


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder with the content of the wheel."""
    source, wheels, site = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "site"))
    for path in ROOT.iterdir():
        if path.is_dir() and path.name in {package.split(".")[1] for package in PACKAGES[1:]}:
            shutil.copytree(path, source / path.name, ignore=CACHES)
        elif path.is_file():
            shutil.copy(path, source)
    build = f"from setuptools.build_meta import build_wheel; build_wheel({str(wheels)!r})"
    subprocess.run([sys.executable, "-c", build], cwd=source, capture_output=True, check=True)
    (wheel,) = wheels.glob("*.whl")
    ZipFile(wheel).extractall(site)
    return site


def test_every_folder_with_modules_is_a_package():
    places = [path for path in ROOT.iterdir() if path.is_dir() and path.name not in NOT_PACKAGED]
    modules = {path.parent for place in places for path in place.rglob("*.py")}
    assert modules <= set(map(folder_of, PACKAGES)) and len(modules) > 10


def test_the_wheel_has_every_file_of_every_package(site):
    expected = set(ROOT.glob("*.py"))
    for package in PACKAGES[1:]:
        expected |= {path for path in folder_of(package).iterdir() if path.is_file() and path.suffix != ".pyc"}
    expected |= set((ROOT / "configs").rglob("*.yaml"))
    wheel = {path.relative_to(site / "rsmclip") for path in (site / "rsmclip").rglob("*") if path.is_file()}
    assert wheel == {path.relative_to(ROOT) for path in expected} and len(wheel) > 200


def test_the_wheel_trains_evaluates_and_classifies_outside_the_checkout(site, model_folder, corpus_folder, tmp_path):
    environment = os.environ | {"PYTHONPATH": str(site), "HF_HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}

    def command(*arguments: object) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "rsmclip", *map(str, arguments)],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = subprocess.run(
        [sys.executable, "-c", "import rsmclip; print(rsmclip.__file__)"],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert where.stdout.strip() == str(site / "rsmclip" / "__init__.py")
    assert "classify" in command("--help")
    data = ("--dataset", corpus_folder, "--model", model_folder, "--languages", "en", "pt", "--benchmarks", "demo")
    sizes = ("--max_train_steps", 1, "--batch_size", 4, "--num_workers", 0, "--mixed_precision", "no")
    command("train", "--config", "finetune", *data, *sizes, "--output_dir", "run")
    assert {"README.md", "handler.py", "modeling_rsmclip.py"} <= {path.name for path in (tmp_path / "run").iterdir()}
    labels = ("--labels", "a beach, a port")
    assert "a port" in command("classify", "run", corpus_folder, *labels)


def test_the_dockerfile_uses_targets_of_the_makefile_and_leaves_out_what_git_ignores():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("$(VENV)", ".venv")
    dockerfile = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "RUN make .venv/.installed-test " in dockerfile and 'CMD ["make", "train"]' in dockerfile
    assert "\n.venv/.installed-test:" in makefile and "\ntrain:" in makefile
    ignored = (ROOT / ".gitignore").read_text().split()
    copied = {name.removeprefix("**/") for name in (ROOT / ".dockerignore").read_text().split()}
    assert {name.rstrip("/") for name in ignored} - {"*.pyc"} <= copied
