"""The command line of the data step: its output, and one error line for bad input."""

import io
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageOps

from rsmclip.benchmarks import fuzz_images
from rsmclip.data import __main__ as cli
from rsmclip.data.demo import corpus as demo
from rsmclip.data.schema import load_corpus
from tests.image_folders import write_csv, write_shard
from tests.rasters import write_raster
from tests.translators import make_chat_model

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def made(tmp_path) -> Path:
    """A folder of two images, in train and test."""
    root = tmp_path / "made"
    root.mkdir()
    lines = []
    for number, split in enumerate(("train", "test")):
        Image.new("RGB", (5, 5)).save(root / f"{number}.png")
        lines.append({"file_name": f"{number}.png", "text": "a road .", "split": split})
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def refusal(capsys, *arguments: object) -> str:
    """Return the message of a refused command. Its exit status is 2."""
    with pytest.raises(SystemExit) as stop:
        cli.main([str(argument) for argument in arguments])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert message.splitlines()[-1].startswith("error: ") and "Traceback" not in message
    return message


def test_build_takes_several_sources_and_counts_what_it_left_out(tmp_path, made, capsys):
    other = tmp_path / "other"
    other.mkdir()
    (other / "metadata.jsonl").write_text('{"file_name": "gone.png", "text": "a road ."}\n')
    sources = ["--source", f"imagefolder={made}", "--source", f"imagefolder={other}"]
    message = refusal(capsys, "build", *sources, "--output", tmp_path / "out")
    assert "image missing: other/gone" in message and "--skip_bad" in message.splitlines()[-1]
    cli.main(["build", *sources, "--output", str(tmp_path / "out"), "--skip_bad"])
    assert "image missing: 1" in capsys.readouterr().out


@pytest.mark.parametrize("options", [[], ["--stretch", "2", "98"]], ids=["plain", "stretched"])
def test_build_leaves_out_images_that_would_take_gigabytes_or_hours(tmp_path, made, capsys, options):
    draw = random.Random(0)
    costly = {
        "tags.tif": next(fuzz_images.tiff_tags(draw, 3_000)),
        "exif.jpg": [*fuzz_images.jpeg_segments(draw, 3_000)][10],
        "profiles.png": [*fuzz_images.png_text(draw, 30_000)][4],
        "comments.gif": next(fuzz_images.gif_blocks(draw, 10**6)),
        "lines.bmp": fuzz_images.bmp(b"\1\0\0\0" * 7_000, (7_000, 7_000)),
        "blocks.jp2": fuzz_images.j2k(5_000, 5_000, block=2),
        "canvas.webp": fuzz_images.webp_animation((12_000, 12_000)),
        "comments.ppm": b"P3 16 16 255\n" + b"#\n" * 500_000 + b"0 " * 768,
    }
    with (made / "metadata.jsonl").open("a") as lines:
        for name, content in costly.items():
            (made / name).write_bytes(content)
            lines.write(json.dumps({"file_name": name, "text": "a road .", "split": "train"}) + "\n")
    command = ["build", "--source", f"imagefolder={made}", "--output", tmp_path / "out", *options]
    _, own, _ = fuzz_images.measured(len, b"")  # a process that does nothing
    seconds, memory, outcome = fuzz_images.measured(lambda _: cli.main([*map(str, command), "--skip_bad"]), b"")
    assert outcome == "read" and len(load_corpus(tmp_path / "out")["train"]) == 1
    printed = (tmp_path / "out" / "README.md").read_text()
    assert all(f"/{name}: " in printed for name in costly), printed
    assert seconds < 10 and memory - own < 10**9


@pytest.fixture
def own_data(tmp_path) -> Path:
    """Twenty scenes in CSV files of shuffled lines and in three shards, with the captions of the demo corpus."""
    rows = [row for _, row in demo.demo_examples(rows={"train": 20})]
    lines = []
    for number, row in enumerate(rows):
        captions = row["captions"]
        texts = zip(captions["en"], captions["pt"], captions["zh"], strict=True)
        lines += [(f"tiles/{number}.png", *line) for line in texts]
        files = {
            f"{number}.png": row["image"]["bytes"],
            f"{number}.json": {code: captions[code] for code in ("en", "pt")},
        }
        write_shard(tmp_path / "shards" / f"scenes-{number % 3}.tar", files, "w" if number < 3 else "a")
        for folder in ("english", "languages"):
            (tmp_path / folder / "tiles").mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / "tiles" / f"{number}.png").write_bytes(row["image"]["bytes"])
    random.Random(0).shuffle(lines)
    write_csv(tmp_path / "english" / "captions.csv", "picture,caption", *(line[:2] for line in lines))
    write_csv(tmp_path / "languages" / "captions.csv", "picture,en,pt,zh", *lines)
    return tmp_path


@pytest.mark.parametrize(
    ("source", "languages"),
    [
        ("imagefolder=english,image=picture,captions=caption", ["en"]),
        ("imagefolder=languages,image=picture", ["en", "pt", "zh"]),
        ("webdataset=shards", ["en", "pt"]),
        ("webdataset=shards/*.tar", ["en", "pt"]),
    ],
)
def test_own_captions_are_built_with_drawn_splits_in_one_command(own_data, monkeypatch, capsys, source, languages):
    monkeypatch.chdir(own_data)
    cli.main(["build", "--source", source, "--split", "80/10/10", "--output", "out"])
    told, noted = capsys.readouterr()
    assert "note:" not in noted
    for split, count in (("train", 16), ("val", 2), ("test", 2)):
        assert f"| {split} | {count} | {' | '.join([str(5 * count)] * len(languages))} |" in told
    corpus = load_corpus("out")
    assert list(corpus["train"].features["captions"]) == languages
    originals = {row["image"]["bytes"]: row["captions"] for _, row in demo.demo_examples(rows={"train": 20})}
    for row in corpus["train"]:
        expected = originals[row["image"]["bytes"]]
        found = zip(*(row["captions"][code] for code in languages), strict=True)
        assert sorted(found) == sorted(zip(*(expected[code] for code in languages), strict=True))


def test_without_split_one_line_says_that_everything_is_train(own_data, monkeypatch, capsys):
    monkeypatch.chdir(own_data)
    cli.main(["build", "--source", "webdataset=shards", "--output", "out"])
    [note] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert "everything is train" in note and "--split" in note
    cli.main(["build", "--source", "hub=out", "--output", "divided", "--split", "50/30/20", "--seed", "4"])
    assert [rows.num_rows for rows in load_corpus("divided").values()] == [10, 6, 4]


@pytest.mark.parametrize(("english", "unused"), [(["a road ."], 0), (["a road .", "a lake ."], 1), (["a lake ."], 1)])
def test_translations_that_fit_no_caption_are_counted(tmp_path, made, capsys, english, unused):
    (tmp_path / "t").mkdir()
    lines = [json.dumps({"en": text, "pt": f"Uma frase sobre isto, número {n}."}) for n, text in enumerate(english)]
    (tmp_path / "t" / "captions.jsonl").write_text("\n".join(lines))
    (tmp_path / "t" / "translation.json").write_text(
        json.dumps({"model": "m", "revision": "", "prompt": "", "counts": {}})
    )
    command = ["build", "--source", f"imagefolder={made}", "--translations", str(tmp_path / "t")]
    cli.main([*command, "--output", str(tmp_path / "out")])
    notes = [line for line in capsys.readouterr().err.splitlines() if line.startswith("note:")]
    assert len(notes) == (1 if unused else 0)
    assert all(f"{unused} of {len(english)} translated" in note and "'a lake.'" in note for note in notes)


def test_a_split_in_vain_is_noted(tmp_path, made, capsys):
    command = ["build", "--source", f"imagefolder={made}", "--split", "80/10/10", "--output", str(tmp_path / "out")]
    cli.main(command)
    assert "--split divided none" in capsys.readouterr().err


def test_build_stretches_images_of_16_bits_and_says_so_in_the_card(tmp_path, made, capsys):
    sensor = np.arange(25 * 3, dtype=np.uint16).reshape(5, 5, 3) * 40
    (made / "1.png").write_bytes(write_raster(sensor, driver="PNG"))
    command = ["build", "--source", f"imagefolder={made}", "--output", str(tmp_path / "out")]
    assert "--stretch 2 98" in refusal(capsys, *command)
    for bad in (("98", "2"), ("2", "101"), ("nan", "98"), ("-1", "98"), ("2", "x")):
        assert bad[1] in refusal(capsys, *command, "--stretch", *bad).splitlines()[-1]
    assert not (tmp_path / "out").exists()
    cli.main([*command, "--stretch", "2", "98"])
    stored = load_corpus(tmp_path / "out")["test"][0]["image"]["bytes"]
    assert np.asarray(Image.open(io.BytesIO(stored))).std() > 60
    assert "percentiles 2 and 98" in (tmp_path / "out" / "README.md").read_text()


def test_without_rasterio_the_error_of_stretch_names_the_extra(tmp_path, made, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    command = ["build", "--source", f"imagefolder={made}", "--output", tmp_path / "out", "--stretch", "2", "98"]
    assert "[geo]" in refusal(capsys, *command)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "command"),
        (["crawl"], "'crawl'"),
        (["translate", "./nowhere", "--output", "out"], "./nowhere"),
        (["translate", "x", "--output", "out", "--languages", "en"], "'en'"),
        (["translate", "x", "--output", "out", "--batch_size", "0"], "--batch_size"),
        (["audit", "./nowhere", "--output", "report.json"], "./nowhere"),
        (["audit", "nowhere", "--output", "report"], "'report'"),
        (["audit", ".", "--output", "../r.json", "--remove"], "--remove"),
        (["build", "--output", "out"], "--source"),
        (["build", "--source", "rsicd", "--output", "out"], "'rsicd'"),
        (["build", "--source", "rsicd=x"], "--output"),
        (["build", "--source", "rsicd=missing", "--output", "out"], "missing"),
        (["build", "--source", "webdataset=missing", "--output", "out"], "missing"),
        (["build", "--source", "ucm=.", "--output", "out", "--split", "80/20"], "'80/20'"),
        (["build", "--source", "ucm=.", "--output", "out", "--seed", "-1"], "--seed"),
        (["build", "--source", "rsvqa=.", "--output", "out"], "'rsvqa'"),
        (["build", "--source", "hub=./nowhere", "--output", "out"], "./nowhere"),
        (["build", "--source", "ucm=.", "--output", "out"], "dataset_ucm.json"),
        (["build", "--source", "ucm=.", "--output", "out", "--translations", "missing"], "missing"),
        (["build", "--source", "ucm=.", "--output", "out", "--push_to_hub", "a/b/c"], "a/b/c"),
        (["demo", "--output", "out", "--contact_sheet", "sheet"], "'sheet'"),
        (["demo", "--output", "out", "--seed", "-1"], "--seed"),
    ],
)
def test_bad_input_is_one_clear_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    told = refusal(capsys, *arguments)
    assert message in told and told.count("\n") == 1
    assert not any(tmp_path.iterdir())


def test_build_prints_rows_and_the_acceptance_of_translations(tmp_path, made, capsys):
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "captions.jsonl").write_text('{"en": "a road .", "pt": "a road", "de": "Eine Straße."}\n')
    command = ["build", "--source", f"imagefolder={made}", "--translations", str(tmp_path / "t"), "--output"]
    cli.main([*command, str(tmp_path / "out")])
    told = capsys.readouterr().out
    assert "| split | images | en | de |" in told
    assert "| pt | 1 | 0 | 0.0 | 1 |" in told and "| de | 1 | 1 | 100.0 | 0 |" in told
    assert load_corpus(tmp_path / "out")["test"]["captions"][0] == {"en": ["a road."], "de": ["Eine Straße."]}


def test_a_dry_run_counts_and_writes_nothing(tmp_path, made, capsys):
    cli.main(["build", "--source", f"imagefolder={made}", "--output", str(tmp_path / "out")])
    model = make_chat_model(tmp_path / "model", [])
    (model / "model.safetensors").unlink()  # a dry run needs no weights
    command = ["translate", str(tmp_path / "out"), "--model", str(model), "--output", str(tmp_path / "t"), "--dry_run"]
    cli.main(command)
    assert "9 translations" in capsys.readouterr().out
    assert not (tmp_path / "t").exists()


def test_a_model_that_is_nowhere_is_one_line_and_leaves_nothing(tmp_path, made, capsys):
    cli.main(["build", "--source", f"imagefolder={made}", "--output", str(tmp_path / "out")])
    capsys.readouterr()
    command = ["translate", tmp_path / "out", "--model", tmp_path / "no model", "--output", tmp_path / "t"]
    assert "no model" in refusal(capsys, *command).splitlines()[-1] and not (tmp_path / "t").exists()


@pytest.fixture
def leaking(tmp_path, capsys) -> Path:
    """A built corpus whose `train` has the picture of `test`, mirrored, beside another."""
    root = tmp_path / "leaking_source"
    root.mkdir()
    pictures = [Image.open(io.BytesIO(row["image"]["bytes"])) for _, row in demo.demo_examples(rows={"train": 2})]
    pictures.append(ImageOps.mirror(pictures[0]))
    lines = []
    for number, (picture, split) in enumerate(zip(pictures, ("test", "train", "train"), strict=True)):
        picture.save(root / f"{number}.png")
        lines.append({"file_name": f"{number}.png", "text": f"picture {number}", "split": split})
    (root / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cli.main(["build", "--source", f"imagefolder={root}", "--output", str(tmp_path / "leaking")])
    capsys.readouterr()
    return tmp_path / "leaking"


def test_audit_reports_and_notes_its_result_in_the_card(tmp_path, leaking, capsys):
    cli.main(["audit", str(leaking), "--output", str(tmp_path / "report.json")])
    told = capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    assert [row["image_id"] for row in report["to_remove"]] == ["leaking_source/2"]
    assert report["audited"] == "leaking" and str(tmp_path) not in json.dumps(report)  # no path of this machine
    assert told.strip() in (leaking / "README.md").read_text() and load_corpus(leaking)["train"].num_rows == 2


def test_audit_removes_leaks_from_train_and_a_second_audit_finds_none(tmp_path, leaking, capsys):
    command = ["audit", str(leaking), "--output", str(tmp_path / "report.json")]
    cli.main([*command, "--remove"])
    assert "removed from train: 1 rows" in capsys.readouterr().out
    assert load_corpus(leaking)["train"]["image_id"][:] == ["leaking_source/1"]
    assert load_corpus(leaking)["test"].num_rows == 1
    card = (leaking / "README.md").read_text()
    assert "| train | 1 | 1 |" in card and "1 rows were removed" in card
    cli.main(command)
    assert json.loads((tmp_path / "report.json").read_text())["pairs"] == []


def test_audit_compares_with_the_pictures_in_any_folder(tmp_path, leaking, capsys):
    river, report = tmp_path / "aid" / "river", tmp_path / "report.json"
    (river / "folder.jpg").mkdir(parents=True)
    for name in ("readme.pdf", "._a.png", "notes.txt"):
        (river / name).write_text("no picture")
    picture = Image.open(io.BytesIO(load_corpus(leaking)["train"][0]["image"]["bytes"]))
    picture.resize((80, 80)).save(river / "river_7.tif")
    command = ["audit", leaking, "--against", tmp_path / "aid", "--output", report]
    cli.main([str(argument) for argument in command])
    written = json.loads(report.read_text())
    assert {row["image_id"] for row in written["to_remove"]} == {"leaking_source/1", "leaking_source/2"}
    found = [pair["second"] for pair in written["pairs"] if pair["second"]["dataset"] == "aid"]
    assert found == [{"dataset": "aid", "split": "pictures", "image_id": "river/river_7.tif"}]
    assert {"dataset": "aid", "split": "pictures", "rows": 1, "evaluated": True} in written["rows"]

    pq.write_table(pa.table({"label": ["river"]}), tmp_path / "aid" / "labels.parquet")
    cli.main([str(argument) for argument in command])
    assert json.loads(report.read_text()) == written

    (river / "b.jpg").write_text("no picture")
    assert "aid, pictures: river/b.jpg" in refusal(capsys, *command).splitlines()[-1]


@pytest.mark.parametrize(("against", "named"), [(True, "is leaking_source the folder"), (False, "its other splits")])
def test_a_removal_that_would_empty_train_is_refused(tmp_path, leaking, capsys, against, named):
    source = tmp_path / "leaking_source"
    if not against:
        lines = [{"file_name": f"{n}.png", "text": "a", "split": split} for n, split in ((0, "test"), (2, "train"))]
        (source / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        cli.main(["build", "--source", f"imagefolder={source}", "--output", str(leaking), "--overwrite_output_dir"])
    before = {path: path.read_bytes() for path in leaking.rglob("*") if path.is_file()}
    command = ["audit", leaking, *(["--against", source] if against else []), "--output", tmp_path / "report.json"]
    told = refusal(capsys, *command, "--remove").splitlines()[-1]
    assert "leaking: no row of train would remain" in told and named in told
    assert {path: path.read_bytes() for path in leaking.rglob("*") if path.is_file()} == before
    assert json.loads((tmp_path / "report.json").read_text())["to_remove"]


def test_an_audit_of_what_was_not_built_changes_no_file(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (9, 9)).save(pictures / "a.png")
    (pictures / "README.md").write_text("hi\n\n\n")
    cli.main(["audit", str(pictures), "--output", str(tmp_path / "report.json")])
    assert (pictures / "README.md").read_text() == "hi\n\n\n"


def test_an_audit_is_refused_before_it_starts(tmp_path, leaking, capsys):
    """The report would be in an audited folder, two names are equal, or the corpus holds other files."""
    (leaking / ".gitattributes").write_text("")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (9, 9)).save(pictures / "a.png")
    for output, options, culprit in (
        ("leaking/r.json", [], "leaking/r.json"),
        ("pictures/reports/r.json", ["--against", pictures], "reports/r.json"),
        ("r.json", ["--against", leaking], "name leaking"),
        ("r.json", ["--remove"], ".gitattributes"),
    ):
        assert culprit in refusal(capsys, "audit", leaking, "--output", tmp_path / output, *options)
        assert not (tmp_path / output).exists()


def test_a_card_that_cannot_be_written_stops_an_audit_before_it_starts(tmp_path, leaking, monkeypatch, capsys):
    monkeypatch.setattr(cli.os, "access", lambda path, mode: path != leaking)
    report = tmp_path / "report.json"
    assert f"{leaking / 'README.md'} cannot be written" in refusal(capsys, "audit", leaking, "--output", report)
    assert not report.exists()


def test_a_corpus_without_leaks_is_not_written_again(tmp_path, leaking, capsys):
    command = ["audit", str(leaking), "--output", str(tmp_path / "report.json"), "--remove"]
    cli.main(command)
    [before] = (leaking / "data").glob("train-*")
    shard = before.stat().st_ino
    cli.main(command)
    assert "removed from train: 0 rows" in capsys.readouterr().out and before.stat().st_ino == shard


def test_demo_draws_into_the_folder_from_the_seed(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(demo, "build_demo", lambda *arguments, **options: drawn.append((arguments, options)))
    sheet = tmp_path / "images" / "sheet.png"
    command = ["demo", "--output", str(tmp_path), "--seed", "3", "--overwrite_output_dir"]
    cli.main([*command, "--contact_sheet", str(sheet)])
    assert drawn == [((tmp_path, 3), {"overwrite": True})]
    assert Image.open(sheet).width == 6 * 136 + 8


def test_the_module_runs_without_a_traceback(tmp_path):
    command = [sys.executable, "-m", "rsmclip.data", "build", "--source", f"ucm={tmp_path}", "--output", "out"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: ucm") and str(tmp_path) in done.stderr
