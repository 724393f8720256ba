"""Splits that a build draws: exact shares, no empty split, and images of one picture in one split."""

import random
from collections import Counter

import pytest
from PIL import Image, ImageOps

from rsmclip.core.errors import UserError
from rsmclip.data.audit import leaks
from rsmclip.data.build import UnusableRows, build_corpus
from rsmclip.data.demo.corpus import demo_examples
from rsmclip.data.schema import load_corpus
from rsmclip.data.sources import open_source
from rsmclip.data.split import Division, draw_parts, same_pictures, whole_numbers
from tests.image_folders import image_folder, write_csv, write_image

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize(
    ("total", "percent", "counts"),
    [
        (2000, (80, 10, 10), [1600, 200, 200]),
        (1999, (80, 10, 10), [1599, 200, 200]),
        (10, (33.4, 33.3, 33.3), [4, 3, 3]),
        (3, (98, 1, 1), [1, 1, 1]),
        (50, (90, 10, 0), [45, 5, 0]),
        (7, (0, 0, 100), [0, 0, 7]),
    ],
)
def test_shares_are_whole_numbers_and_none_is_empty(total, percent, counts):
    assert whole_numbers(total, percent) == counts
    parts = draw_parts([1] * total, Division(percent))
    assert [parts.count(part) for part in range(3)] == counts


def test_sets_of_images_keep_the_shares_exact_where_they_fit():
    for seed in range(20):
        sizes = [random.Random(seed).choice((1, 1, 1, 2, 3, 5)) for _ in range(200)]
        parts, total = draw_parts(sizes, Division((70, 20, 10), seed)), sum(sizes)
        counts = Counter()
        for size, part in zip(sizes, parts, strict=True):
            counts[part] += size
        assert [counts[part] for part in range(3)] == whole_numbers(total, (70, 20, 10))


def test_no_split_is_empty_when_sets_are_large():
    for sizes in ([3, 3, 3], [50, 1, 1], [40, 40, 2]):
        for seed in range(10):
            assert set(draw_parts(sizes, Division((80, 10, 10), seed))) == {0, 1, 2}
    with pytest.raises(UserError, match="80/10/10.* 3 .*: 2"):
        draw_parts([5, 5], Division((80, 10, 10)))


def test_the_seed_draws_another_split():
    first, again, other = (draw_parts([1] * 100, Division((50, 25, 25), seed)) for seed in (0, 0, 1))
    assert first == again != other


def test_a_split_takes_no_more_cores_than_its_job_has(tmp_path, monkeypatch, one_core):
    monkeypatch.setattr(leaks, "ProcessPoolExecutor", lambda count: pytest.fail(f"{count} processes"))
    encoded = write_image(tmp_path / "a.png")
    assert same_pictures([[(leaks.AuditedRow("corpus", "", name), encoded) for name in "ab"]]) == [["a", "b"]]


@pytest.mark.parametrize(
    "text", ["80/10", "80/10/20", "a/b/c", "110/-10/0", "nan/50/50", "", "80,10,10", 0.8, (80, 10, 10)]
)
def test_other_shares_are_refused(text):
    with pytest.raises(UserError, match="--split.*80/10/10"):
        Division.parse(text)


@pytest.fixture
def drawn(tmp_path):
    """Twelve scenes; the mirrored first one, and a turned and smaller copy of the second one."""
    root = tmp_path / "mine"
    root.mkdir()
    examples = [row for _, row in demo_examples(rows={"train": 12})]
    for number, example in enumerate(examples):
        (root / f"{number}.png").write_bytes(example["image"]["bytes"])
    ImageOps.mirror(Image.open(root / "0.png")).save(root / "mirrored.png")
    Image.open(root / "1.png").rotate(90).resize((70, 70)).save(root / "turned.png")
    return root


NAMES = [*(f"{number}.png" for number in range(12)), "mirrored.png", "turned.png"]


def splits_of(folder) -> dict[str, str]:
    return {name.split("/")[1]: split for split, rows in load_corpus(folder).items() for name in rows["image_id"]}


def test_images_of_one_picture_stay_together_and_the_order_of_lines_does_not_matter(tmp_path, drawn):
    splits = []
    for seed, order in ((0, 1), (0, 2), (3, 1)):
        lines = [(name, f"scene {name}") for name in random.Random(order).sample(NAMES, len(NAMES))]
        write_csv(drawn / "metadata.csv", "file_name,text", *lines)
        out = tmp_path / f"out{seed}{order}"
        build_corpus([open_source("imagefolder", drawn)], out, split="50/25/25", seed=seed)
        splits.append(splits_of(out))
        assert splits[-1]["mirrored"] == splits[-1]["0"] and splits[-1]["turned"] == splits[-1]["1"]
        assert Counter(splits[-1].values()) == {"train": 7, "val": 4, "test": 3}
    assert splits[0] == splits[1] != splits[2]


def test_stated_splits_are_kept_and_images_of_their_pictures_follow_them(tmp_path, drawn):
    stated = {"mirrored.png": "test", "turned.png": "train", "2.png": "val"}
    image_folder(drawn, *({"file_name": name, "text": "A.", "split": stated.get(name)} for name in NAMES))
    report = build_corpus([open_source("imagefolder", drawn)], tmp_path / "out", split="80/10/10")
    found = splits_of(tmp_path / "out")
    assert {name: found[name[:-4]] for name in stated} == stated
    assert (found["0"], found["1"]) == ("test", "train")
    others = Counter(found[str(number)] for number in range(3, 12))
    assert others == {"train": 7, "val": 1, "test": 1} and report.unstated == 11


def test_unusable_rows_stop_a_split_or_are_left_out(tmp_path, drawn):
    image_folder(drawn, *({"file_name": name, "text": "A."} for name in ("0.png", "gone.png", "3.png")))
    source = open_source("imagefolder", drawn)
    with pytest.raises(UnusableRows, match="image missing: 1"):
        build_corpus([source], tmp_path / "out", split="50/50/0")
    assert not (tmp_path / "out").exists()
    report = build_corpus([source], tmp_path / "out", split="50/50/0", skip_bad=True)
    assert set(splits_of(tmp_path / "out").values()) == {"train", "val"} and len(report.faults) == 1


def test_blank_images_are_the_same_picture_only_if_they_are_equal(tmp_path):
    root = tmp_path / "mine"
    for number in range(8):
        write_image(root / f"{number}.png", (0, 0, 10 * (number // 2)))
    image_folder(root, *({"file_name": f"{number}.png", "text": "A."} for number in range(8)))
    build_corpus([open_source("imagefolder", root)], tmp_path / "out", split="50/25/25")
    found = splits_of(tmp_path / "out")
    assert all(found[str(number)] == found[str(number + 1)] for number in range(0, 8, 2))
    assert Counter(found.values()) == {"train": 4, "val": 2, "test": 2}
