"""Folders of images by class: rows, and the classes of folder names."""

import os
import shutil

import pytest
from PIL import Image

from rsmclip.core.errors import UserError
from rsmclip.core.images import image_bytes
from rsmclip.eval.evaluate import check_labels
from rsmclip.eval.image_folder import benchmark_for, match_labels, read_image_folder
from rsmclip.eval.protocol import load_benchmark


def draw(root, *names):
    """Save an image of another color for each name, in the format of its suffix."""
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (number, 0, 0)).save(root / name)


def test_images_are_ordered_by_label_and_file_name(tmp_path):
    draw(tmp_path, "River/b.tif", "River/a.JPG", "Forest/z.png")
    (tmp_path / "readme.txt").write_text("no class")
    (tmp_path / "River" / "._a.jpg").write_bytes(b"left by macOS")
    rows = read_image_folder(tmp_path)
    files = [tmp_path / name for name in ("Forest/z.png", "River/a.JPG", "River/b.tif")]
    assert list(rows["image_id"]) == ["Forest/z.png", "River/a.JPG", "River/b.tif"]
    assert list(rows["label"]) == ["Forest", "River", "River"]
    assert [image_bytes(image) for image in rows["image"]] == [file.read_bytes() for file in files]


def test_reading_a_folder_does_not_load_its_images(tmp_path):
    (tmp_path / "River").mkdir()
    for number in range(4):
        (tmp_path / "River" / f"{number}.png").write_bytes(bytes(1_000_000))
    assert read_image_folder(tmp_path).data.nbytes < 10_000


def test_category_folders_are_not_labels(tmp_path):
    draw(tmp_path, "water area/sea/1.png", "water area/dam/1.png", "woodland/forest/1.png")
    (tmp_path / "woodland" / ".DS_Store").write_bytes(b"")
    assert list(read_image_folder(tmp_path)["label"]) == ["dam", "forest", "sea"]
    draw(tmp_path, "woodland/sea/1.png")
    with pytest.raises(UserError, match="'sea'.*water area/sea.*woodland/sea"):
        read_image_folder(tmp_path)


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(UserError, match="nowhere"):
        read_image_folder(tmp_path / "nowhere")
    with pytest.raises(UserError, match="/<class>/<image>"):
        read_image_folder(tmp_path)
    draw(tmp_path, "River/a.png")
    (tmp_path / "Forest").mkdir()
    (tmp_path / "Forest" / "notes.txt").write_text("")
    with pytest.raises(UserError, match="Forest"):
        read_image_folder(tmp_path)


def test_a_folder_without_images_beside_those_of_a_class_does_not_matter(tmp_path):
    (tmp_path / "Forest" / "annotations").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "Forest" / "a.png")
    (tmp_path / "Forest" / "annotations" / "a.xml").write_text("<a/>")
    assert read_image_folder(tmp_path)["label"][:] == ["Forest"]


def test_a_folder_beside_the_images_of_a_class_is_named(tmp_path):
    draw(tmp_path, "River/a.png", "Forest/a.png", "Forest/2019/b.png")
    with pytest.raises(UserError, match="Forest.*'2019'"):
        read_image_folder(tmp_path)
    shutil.rmtree(tmp_path / "Forest" / "2019")
    (tmp_path / "Forest" / ".cache").mkdir()
    assert len(read_image_folder(tmp_path)) == 2
    (tmp_path / "Forest" / "a.png").unlink()
    (tmp_path / "Forest" / "folder.png").mkdir()
    with pytest.raises(UserError, match="Forest"):
        read_image_folder(tmp_path)


def test_a_name_that_is_not_utf_8_is_named(tmp_path):
    draw(tmp_path, "River/a.png")
    try:
        (tmp_path / "River").rename(tmp_path / os.fsdecode(b"caf\xe9"))
    except OSError:
        pytest.skip("this file system has names in UTF-8 only")
    with pytest.raises(UserError, match="caf.udce9"):
        read_image_folder(tmp_path)


@pytest.mark.parametrize(
    "name, on_disk, label",
    [
        ("aid", "bareland", "BareLand"),
        ("aid", "storage tanks", "StorageTanks"),
        ("resisc45", "SeaIce", "sea_ice"),
        ("mlrsnet", "Harbor_Port", "harbor&port"),
        ("mlrsnet", "swimming-pool", "swimmimg_pool"),
        ("rsc11", "storage_tanks", "stroagetanks"),
        ("rsscn7", "RiverLake", "dRiverLake"),
        ("patternnet", "wastewaterplant", "wastewater_treatment_plant"),
    ],
)
def test_spellings_of_copies_are_matched(name, on_disk, label):
    benchmark = load_benchmark(name)
    assert match_labels([on_disk], benchmark) == {on_disk: label}
    assert match_labels(benchmark.labels, benchmark) == {label: label for label in benchmark.labels}


def test_an_unknown_class_is_named_with_the_nearest():
    with pytest.raises(UserError, match="'forrest'.*'eurosat'.*'Forest'"):
        match_labels(["River", "forrest"], load_benchmark("eurosat"))
    with pytest.raises(UserError, match="'Sea_Lake' and 'sealake'.*'eurosat'"):
        match_labels(["sealake", "Sea_Lake"], load_benchmark("eurosat"))
    with pytest.raises(UserError, match="'sydney_captions'"):
        benchmark_for("sydney_captions", ["industrial"])


def test_the_benchmark_takes_the_spelling_on_disk_and_keeps_absent_classes():
    benchmark = benchmark_for("rsscn7", ["grass", "RiverLake", "forest", "Resident", "gParking"] * 2)
    assert benchmark.labels == ["grass", "bField", "cIndustry", "RiverLake", "forest", "Resident", "gParking"]
    original = load_benchmark("rsscn7")
    for language, names in original.class_names.items():
        assert list(benchmark.class_names[language]) == benchmark.labels
        assert list(benchmark.class_names[language].values()) == list(names.values())
    check_labels(["grass", "RiverLake"], benchmark)
    assert benchmark_for("rsscn7", original.labels, prompts="en3").prompts == "en3"


def test_folders_without_a_file_give_english_names():
    benchmark = benchmark_for("mine", ["aGrass", "DenseResidential", "baseball_diamond", "aGrass"], prompts="single")
    assert benchmark.class_names == {
        "en": {"DenseResidential": "dense residential", "aGrass": "grass", "baseball_diamond": "baseball diamond"}
    }
    assert benchmark.labels == list(benchmark.class_names["en"])
    assert (benchmark.prompts, benchmark.templates) == ("single", {"en": ["a satellite image of {}."]})
    with pytest.raises(UserError, match="'BareLand' and 'bare_land'.*'bare land'"):
        benchmark_for("mine", ["BareLand", "bare_land"])
