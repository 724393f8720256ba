"""The audit finds copies whatever was done to them, pairs no different pictures, and removes rows of train only."""

import io
import json
import re
from collections.abc import Callable, Iterable

import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value
from datasets import Image as ImageColumn
from PIL import Image, ImageDraw, ImageOps

from rsmclip.core.errors import UserError
from rsmclip.data.audit import leaks as audit_module
from rsmclip.data.audit import report as report_module
from rsmclip.data.audit import same_picture
from rsmclip.data.audit.leaks import AuditedRow, audit
from rsmclip.data.audit.report import summary, write_report
from rsmclip.data.audit.same_picture import TURNS
from rsmclip.data.demo.corpus import demo_examples

FEATURES = Features(
    {
        "image": ImageColumn(decode=False),
        "image_id": Value("string"),
        "captions": {"en": List(Value("string")), "pt": List(Value("string"))},
    }
)
ROTATIONS = {  # Pillow's own turns, as an independent reference
    "quarter turn": Image.Transpose.ROTATE_90,
    "half turn": Image.Transpose.ROTATE_180,
    "three-quarter turn": Image.Transpose.ROTATE_270,
}


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Fourteen different scenes of the demo corpus."""
    return [Image.open(io.BytesIO(row["image"]["bytes"])) for _, row in demo_examples(rows={"train": 14})]


def encode(image: Image.Image, quality: int = 90, file_format: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, file_format, **({"quality": quality} if file_format == "JPEG" else {}))
    return buffer.getvalue()


def turned(image: Image.Image, name: str) -> Image.Image:
    image = ImageOps.mirror(image) if name.startswith("mirrored") else image
    rotation = ROTATIONS.get(name.removeprefix("mirrored, "))
    return image if rotation is None else image.transpose(rotation)


def cropped(image: Image.Image, side: float) -> Image.Image:
    left, top = (round(length * (1 - side) / 2) for length in image.size)
    return image.crop((left, top, image.width - left, image.height - top))


def resized(image: Image.Image, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def texture(seed: int, contrast: float, brightness: float = 90.0) -> Image.Image:
    """A meadow or a desert: noise without a layout, of a standard deviation in gray levels."""
    noise = Image.fromarray(np.random.default_rng(seed).normal(size=(40, 40)).astype(np.float32))
    soft = np.asarray(noise.resize((150, 150), Image.Resampling.BICUBIC))
    soft = soft / soft.std() * contrast + brightness
    return Image.fromarray(np.clip(soft, 0, 255).round().astype(np.uint8)).convert("RGB")


def split_of(images: Iterable[Image.Image | bytes], captions: Iterable[list[str]] | None = None) -> Dataset:
    """Rows with the ids 0, 1, …; the captions of each are its own unless they are given."""
    encoded = [image if isinstance(image, bytes) else encode(image) for image in images]
    texts = list(captions) if captions else [[f"{index} {len(encoded)}"] for index in range(len(encoded))]
    columns = {
        "image": [{"bytes": image, "path": None} for image in encoded],
        "image_id": [str(index) for index in range(len(encoded))],
        "captions": [{"en": text, "pt": [None] * len(text)} for text in texts],
    }
    return Dataset.from_dict(columns, features=FEATURES)


def audit_one(num_processes: int | None = 1, **splits: Dataset) -> audit_module.AuditReport:
    return audit({"corpus": DatasetDict(splits)}, "corpus", num_processes)


def ids(report: audit_module.AuditReport) -> list[tuple[str, str]]:
    """Pairs as ("split/id", "split/id")."""
    return [tuple(f"{row.split}/{row.image_id}" for row in pair[:2]) for pair in report.pairs]


COPIES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "re-encoded": lambda image: Image.open(io.BytesIO(encode(image, quality=40))),
    "enlarged": lambda image: resized(image, 1.5),
    "reduced": lambda image: resized(image, 0.7),
    "squeezed": lambda image: image.resize((image.width * 2, image.height)),
    "cropped to 0.9": lambda image: cropped(image, 0.9),
    "cropped to 0.8": lambda image: cropped(image, 0.8),
    "gray": lambda image: image.convert("L"),
    "with a palette": lambda image: image.quantize(256),
    "mixed": lambda image: resized(turned(cropped(image, 0.85), "mirrored, quarter turn"), 1.3),
} | {name: (lambda image, name=name: turned(image, name)) for name in TURNS}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_found_whatever_was_done_to_it(pictures, name):
    """In both orders: a crop may come before or after the whole picture."""
    copies = [COPIES[name](image).convert("RGB") for image in pictures]
    whole, changed = split_of(pictures), split_of(encode(copy, quality=75) for copy in copies)
    expected = [(f"train/{index}", f"test/{index}") for index in range(len(pictures))]
    assert ids(audit_one(train=whole, test=changed)) == ids(audit_one(train=changed, test=whole)) == expected


@pytest.mark.parametrize("name", TURNS)
@pytest.mark.parametrize("side", [1.0, 0.84])
def test_a_pair_has_the_turn_and_crop_of_the_second_picture(pictures, name, side):
    whole, part = pictures[1], cropped(pictures[1], side)
    forth = audit_one(train=split_of([whole, turned(part, name)])).pairs[0]
    back = audit_one(train=split_of([part, turned(whole, name)])).pairs[0]
    assert (forth.transform, back.transform) == (name, name)
    assert forth.crop == pytest.approx(side, abs=0.011) and back.crop == pytest.approx(side, abs=0.011)


def test_different_pictures_and_smaller_parts_are_no_pairs(pictures):
    other = [row["image"]["bytes"] for _, row in demo_examples(seed=1, rows={"train": 60})]
    parts = [resized(cropped(image, 0.6), 1.6) for image in pictures]
    assert audit_one(train=split_of(pictures), test=split_of(other), parts=split_of(parts)).pairs == []


def test_flat_textures_are_no_pairs_and_their_copies_are():
    """Deserts and meadows look alike: same brightness, same contrast, no layout."""
    scenes = [texture(seed, contrast=6.0) for seed in range(40)]
    copies = [resized(turned(cropped(scene, 0.9), "half turn"), 0.8) for scene in scenes]
    report = audit_one(train=split_of(scenes), test=split_of(encode(copy, quality=80) for copy in copies))
    assert ids(report) == [(f"train/{index}", f"test/{index}") for index in range(40)]


def test_blank_pictures_are_pairs_only_if_they_are_exact_copies():
    blank = [Image.new("RGB", (64, 64), (shade, shade, shade)) for shade in (100, 101)]
    noise = np.random.default_rng(0).integers(99, 102, (3, 64, 64, 3), dtype=np.uint8)
    train = [*blank, *(encode(Image.fromarray(image), file_format="PNG") for image in noise)]
    larger = blank[0].resize((65, 65))
    test = [encode(blank[0], file_format="PNG"), larger, encode(Image.fromarray(noise[0]), quality=99)]
    report = audit_one(train=split_of(train), test=split_of(test))
    assert ids(report) == [("train/0", "test/0")]  # equal pixels in another file
    assert report.pairs[0][2:] == (1.0, "none", 1.0)


def test_exact_copies_are_all_pairs_with_each_other_and_with_versions(pictures):
    report = audit_one(train=split_of([pictures[0]] * 3), test=split_of([turned(pictures[0], "half turn")]))
    numbers = [(f"train/{one}", "test/0") for one in range(3)]
    assert ids(report) == [*numbers, ("train/0", "train/1"), ("train/0", "train/2"), ("train/1", "train/2")]


def test_processes_and_blocks_change_nothing(pictures, monkeypatch):
    copies = [resized(cropped(image, 0.9), 1.2) for image in pictures]
    splits = {"train": split_of(pictures), "val": split_of(copies), "test": split_of(reversed(copies))}
    alone = audit_one(1, **splits)
    monkeypatch.setattr(audit_module, "PICTURES_PER_BATCH", 3)
    monkeypatch.setattr(same_picture, "PICTURES_PER_BLOCK", 4)
    assert alone == audit_one(2, **splits) and len(alone.pairs) == 3 * len(pictures)


def test_encoded_pictures_are_read_a_few_batches_ahead():
    """Memory stays flat. `ProcessPoolExecutor.map` would take all batches first."""
    taken = []
    batches = (taken.append(number) or number for number in range(50))
    assert next(iter(audit_module.map_in_order(abs, batches, 2))) == 0
    assert len(taken) <= 5


def test_train_loses_what_is_evaluated_on_and_nothing_else(pictures):
    one, two, three, four = pictures[:4]
    report = audit_one(
        train=split_of([one, two, three, three, four]), val=split_of([one, four]), test=split_of([two, four])
    )
    assert report.to_remove == [AuditedRow("corpus", "train", number) for number in "014"]
    assert len(report.pairs) == 6
    assert ids(report)[-2:] == [("train/2", "train/3"), ("val/1", "test/1")]  # leaks come first


@pytest.mark.parametrize(
    ("splits", "removed"),
    [
        (["train"], ["0"]),  # a dataset with one split is evaluated on as a whole
        (["validation"], ["0"]),
        (["train", "test"], []),  # the copy is in its train
    ],
)
def test_another_corpus_is_evaluated_on_but_for_its_train(pictures, splits, removed):
    other = DatasetDict(dict.fromkeys(splits, split_of([pictures[5]])) | {splits[0]: split_of([pictures[0]])})
    corpus = DatasetDict(train=split_of(pictures[:3]))
    report = audit({"corpus": corpus, "other": other}, "corpus", 1)
    assert [row.image_id for row in report.to_remove] == removed
    assert [pair.second for pair in report.pairs] == [AuditedRow("other", splits[0], "0")]


def test_pairs_of_other_corpora_among_themselves_are_left_out(pictures):
    other = DatasetDict(train=split_of([pictures[0], pictures[0]], [["a"], ["a"]]), test=split_of([pictures[0]]))
    corpus = DatasetDict(train=split_of([pictures[1]], [["b"]]))
    datasets = {"corpus": corpus, "other": other, "third": other}
    report = audit(datasets, "corpus", 1)
    assert report.pairs == [] and report.caption_sets == [] and report.to_remove == []


def test_equal_captions_are_grouped_whatever_their_order_case_and_space(pictures):
    train = [["A road.", "a  field."], ["x", "y"], ["z", "z"], ["x"], ["b"], ["b"], ["b"], [], [""]]
    test = [["a field. ", "a ROAD."], ["other"], ["z"], []]
    report = audit_one(train=split_of(pictures[:9], train), test=split_of(pictures[9:13], test))
    groups = [[f"{row.split}/{row.image_id}" for row in group] for group in report.caption_sets]
    across = [["train/0", "test/0"], ["train/2", "test/2"]]  # from train to evaluation: these come first
    assert groups == [*across, ["train/4", "train/5", "train/6"]]
    assert report.to_remove == []  # equal captions alone remove nothing


@pytest.fixture
def audited(pictures):
    """Two corpora and the report on the first."""
    corpus = DatasetDict(train=split_of(pictures[:6]), test=split_of([cropped(pictures[2], 0.9), pictures[7]]))
    datasets = {"my corpus": corpus, "other": DatasetDict(test=split_of([pictures[4].resize((300, 100))]))}
    return audit(datasets, "my corpus", 1), datasets


def test_a_report_is_complete_in_json_and_readable_in_markdown(audited, tmp_path):
    report, datasets = audited
    write_report(report, datasets, tmp_path / "my report.json")
    written = json.loads((tmp_path / "my report.json").read_text(encoding="utf-8"))
    assert [AuditedRow(**pair["second"]) for pair in written["pairs"]] == [pair.second for pair in report.pairs]
    assert [AuditedRow(**row) for row in written["to_remove"]] == report.to_remove
    assert written["pairs"][0]["crop"] == report.pairs[0].crop and len(written["pairs"]) == 2
    text = (tmp_path / "my report.md").read_text(encoding="utf-8")
    assert text.index("| my corpus, train | my corpus, test | 1 |") < text.index("## The same picture")
    links = re.findall(r"!\[pair \d+\]\((.+)\)", text)
    assert len(links) == 2
    for link in links:
        assert " " not in link and Image.open(tmp_path / link.replace("%20", " ")).height > 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my report.json", "my report.md", "my report_pairs"]


def test_a_report_shows_so_many_pairs_and_replaces_an_older_one(audited, tmp_path, monkeypatch):
    write_report(*audited, tmp_path / "r.json")
    monkeypatch.setattr(report_module, "SHOWN_PAIRS", 1)
    write_report(*audited, tmp_path / "r.json")
    assert [path.name for path in (tmp_path / "r_pairs").iterdir()] == ["001.jpg"]
    assert "1 more pairs" in (tmp_path / "r.md").read_text(encoding="utf-8")
    assert len(json.loads((tmp_path / "r.json").read_text(encoding="utf-8"))["pairs"]) == 2


def test_a_folder_with_other_files_is_not_replaced(audited, tmp_path):
    (tmp_path / "r_pairs").mkdir()
    (tmp_path / "r_pairs" / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="r_pairs"):
        write_report(*audited, tmp_path / "r.json")
    assert (tmp_path / "r_pairs" / "notes.txt").is_file() and not (tmp_path / "r.json").exists()


def test_a_summary_counts_pairs_by_split(audited):
    text = summary(audited[0])
    assert "9 rows" in text and "2 pairs" in text
    assert text.endswith("| my corpus, train | my corpus, test | 1 |\n| my corpus, train | other, test | 1 |")


def test_an_audit_takes_no_more_cores_than_its_job_has(pictures, monkeypatch, one_core):
    monkeypatch.setattr(audit_module, "ProcessPoolExecutor", lambda count: pytest.fail(f"{count} processes"))
    assert audit_one(None, train=split_of(pictures[:2])).pairs == []


@pytest.mark.parametrize("num_processes", [1, 2])
@pytest.mark.parametrize("damage", [lambda encoded: encoded[:500], lambda encoded: b""])
def test_an_undecodable_picture_is_named(pictures, damage, num_processes):
    images = [pictures[0], damage(encode(pictures[1]))]
    with pytest.raises(UserError, match="corpus, val: 1: image undecodable"):
        audit_one(num_processes, train=split_of(pictures[:1]), val=split_of(images))


def masked(image: Image.Image, kind: str) -> Image.Image:
    """A picture with a part without data, as in the tiles of a mosaic."""
    width, height = image.size
    mask = Image.new("1", image.size)
    pen = ImageDraw.Draw(mask)
    shapes = {
        "corner": lambda: pen.polygon([(0, 0), (width * 0.9, 0), (0, height * 0.9)], fill=1),
        "half": lambda: pen.rectangle([0, 0, width // 2, height], fill=1),
        "frame": lambda: pen.rectangle([0, 0, width - 1, height - 1], outline=1, width=width // 16),
    }
    shapes[kind]()
    return Image.composite(Image.new("RGB", image.size), image.convert("RGB"), mask)


@pytest.mark.parametrize("kind", ["corner", "half", "frame"])
def test_pictures_that_share_only_a_part_without_data_are_different(pictures, kind):
    images = [masked(image, kind) for image in [*pictures, *(texture(seed, contrast=6.0) for seed in range(10))]]
    assert audit_one(train=split_of(images)).pairs == []
    copies = [resized(image, 0.7) for image in images]
    assert len(audit_one(train=split_of(images), test=split_of(copies)).pairs) >= len(images) - 1


def test_thousands_of_copies_do_not_make_millions_of_pairs():
    blank = Image.new("RGB", (16, 16))
    report = audit_one(train=split_of([blank] * 400), test=split_of([blank] * 100))
    assert len(report.pairs) < 1100 and len(report.to_remove) == 400
    few = audit_one(train=split_of([blank] * 5), test=split_of([blank] * 3))
    assert len(few.pairs) == 8 * 7 // 2 and len(few.to_remove) == 5
