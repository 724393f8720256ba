"""The index of a folder or corpus: what is embedded, resumed, dropped and refused; the command `rsmclip index`."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import rsmclip
from rsmclip.__main__ import main
from rsmclip.core.errors import UserError
from rsmclip.eval import build_index as module
from rsmclip.eval.build_index import build_index, kept_index, write_corpus_index
from rsmclip.eval.embed import Embedder
from rsmclip.eval.image_sources import open_source
from rsmclip.eval.index import BadIndex, open_index
from rsmclip.eval.models import load_embedder


@pytest.fixture
def embedder(tiny_model, tiny_processor):
    return Embedder(tiny_model, tiny_processor, batch_size=4, name="a model")


@pytest.fixture
def folder(corpus, tmp_path):
    """Eleven images in two folders."""
    place = tmp_path / "my tiles"
    (place / "more of them").mkdir(parents=True)
    for row in range(11):
        name = f"more of them/{row}.jpg" if row % 2 else f"{row}.jpg"
        (place / name).write_bytes(corpus["test"][row]["image"]["bytes"])
    return place


def paths(index):
    return [index.entry(row)["path"] for row in range(len(index))]


def unit(embeds):
    return embeds / np.linalg.norm(embeds, axis=1, keepdims=True)


def by_path(index):
    return dict(zip(paths(index), np.array(index.embeds), strict=True))


def build(folder, embedder, output, **options):
    return build_index(folder, embedder, output, **options)


def test_the_embeddings_are_those_of_the_evaluation(folder, corpus, embedder, tmp_path):
    report = build(folder, embedder, tmp_path / "index")
    assert (report.new, report.changed, report.dropped, report.unchanged) == (11, 0, 0, 0)
    found = by_path(open_index(tmp_path / "index"))
    assert list(found) == sorted(found)
    expected = unit(embedder.images(corpus["test"].select(range(11))).numpy())
    for row in range(11):
        path = f"more of them/{row}.jpg" if row % 2 else f"{row}.jpg"
        np.testing.assert_allclose(found[path], expected[row], atol=1e-6)


def test_a_second_run_embeds_only_what_is_new_or_changed(folder, corpus, embedder, tmp_path, monkeypatch):
    build(folder, embedder, tmp_path / "index")
    before = by_path(open_index(tmp_path / "index"))
    (folder / "0.jpg").unlink()
    (folder / "2.jpg").write_bytes(corpus["test"][20]["image"]["bytes"])
    (folder / "new.PNG").write_bytes(corpus["test"][21]["image"]["bytes"])
    embedded, prepare = [], module.prepare
    monkeypatch.setattr(module, "prepare", lambda *given: embedded.append(given[2].picture.path) or prepare(*given))
    report = build(folder, embedder, tmp_path / "index")
    assert (report.new, report.changed, report.dropped, report.unchanged) == (1, 1, 1, 9)
    assert sorted(embedded) == ["2.jpg", "new.PNG"]
    after = by_path(open_index(tmp_path / "index"))
    assert after.keys() == before.keys() - {"0.jpg"} | {"new.PNG"} and list(after) == sorted(after)
    for path in after.keys() & before.keys() - {"2.jpg"}:
        np.testing.assert_array_equal(after[path], before[path])
    assert not np.allclose(after["2.jpg"], before["2.jpg"])
    assert len(list((tmp_path / "index").glob("*.npy"))) == 2  # embeddings and offsets; the older files are gone


def test_folders_whose_names_have_characters_of_patterns_are_indexed(folder, embedder, tmp_path):
    folder.rename(tmp_path / "tiles[v1]*")
    build(tmp_path / "tiles[v1]*", embedder, tmp_path / "index[v1]")
    assert build(tmp_path / "tiles[v1]*", embedder, tmp_path / "index[v1]").unchanged == 11
    assert len(open_index(tmp_path / "index[v1]")) == 11


def test_a_run_without_changes_leaves_the_files(folder, embedder, tmp_path):
    build(folder, embedder, tmp_path / "index")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "index").iterdir()}
    report = build(folder, embedder, tmp_path / "index")
    assert report.unchanged == 11 and not report.new
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "index").iterdir()} == before


def test_what_cannot_be_used_is_left_out_with_its_reason(folder, embedder, tmp_path):
    (folder / "broken.jpg").write_bytes((folder / "0.jpg").read_bytes()[:200])
    (folder / "text.png").write_text("no image")
    Image.new("L", (2000, 39)).save(folder / "strip.png")
    (folder / "notes.txt").write_text("no image")
    report = build(folder, embedder, tmp_path / "index")
    assert report.left_out.keys() == {"broken.jpg", "text.png", "strip.png"} and report.others == 1
    assert "50" in report.left_out["strip.png"]
    assert len(open_index(tmp_path / "index")) == 11


def test_no_usable_image_is_an_error_and_keeps_the_older_index(folder, embedder, tmp_path):
    build(folder, embedder, tmp_path / "index")
    for path in folder.rglob("*.jpg"):
        path.write_text("no image")
    with pytest.raises(UserError, match=str(folder)):
        build(folder, embedder, tmp_path / "index")
    assert len(open_index(tmp_path / "index")) == 11
    shutil.rmtree(folder)
    folder.mkdir()
    with pytest.raises(UserError, match=str(folder)):
        build(folder, embedder, tmp_path / "index")
    assert len(open_index(tmp_path / "index")) == 11


class Killed(BaseException):
    """Ends a run like a signal: nothing handles it."""


@pytest.mark.parametrize("batches", [0, 1, 2])
def test_a_run_that_was_killed_is_resumed(batches, folder, embedder, tmp_path, monkeypatch):
    append, left = module.append_batch, [batches]

    def append_or_die(*arguments):
        if not left[0]:
            raise Killed
        left[0] -= 1
        append(*arguments)

    monkeypatch.setattr(module, "append_batch", append_or_die)
    with pytest.raises(Killed):
        build(folder, embedder, tmp_path / "index")
    for lines in (tmp_path / "index" / "unfinished").glob("*-*.jsonl"):  # a line of which only a part was written
        with lines.open("ab") as file:
            file.write(b'{"path": "more')
    monkeypatch.setattr(module, "append_batch", append)
    embedded, prepare = [], module.prepare
    monkeypatch.setattr(module, "prepare", lambda *given: embedded.append(given[2].picture.path) or prepare(*given))
    assert build(folder, embedder, tmp_path / "index").new == 11
    assert len(embedded) == 11 - 4 * batches
    build(folder, embedder, tmp_path / "whole")
    whole, resumed = by_path(open_index(tmp_path / "whole")), by_path(open_index(tmp_path / "index"))
    assert whole.keys() == resumed.keys()
    for path, embeds in whole.items():
        np.testing.assert_allclose(resumed[path], embeds, atol=1e-6)
    assert sorted(path.suffix for path in (tmp_path / "index").iterdir() if path.name != ".lock") == [
        ".json",
        ".jsonl",
        ".npy",
        ".npy",
    ]


def test_a_full_disk_is_one_line_and_keeps_the_older_index(folder, corpus, embedder, tmp_path, monkeypatch):
    build(folder, embedder, tmp_path / "index")
    (folder / "new.jpg").write_bytes(corpus["test"][21]["image"]["bytes"])

    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    for name in ("rsmclip.eval.index_files.write_whole", "rsmclip.eval.index_files.np.save"):
        with monkeypatch.context() as patch, pytest.raises(UserError, match="No space left"):
            patch.setattr(name, fail)
            build(folder, embedder, tmp_path / "index")
        assert len(open_index(tmp_path / "index")) == 11
    assert build(folder, embedder, tmp_path / "index").new == 1
    assert len(list((tmp_path / "index").glob("*.npy"))) == 2


def test_another_model_source_or_tile_size_is_refused(folder, corpus_folder, embedder, tmp_path):
    build(folder, embedder, tmp_path / "index")
    with pytest.raises(UserError, match="256"):
        build(folder, embedder, tmp_path / "index", tile=256)
    shutil.copytree(folder, tmp_path / "copy")
    for other in (tmp_path / "copy", corpus_folder):
        with pytest.raises(UserError, match=str(folder)):
            build(other, embedder, tmp_path / "index")
    embedder.model.logit_scale.data += 1
    del embedder.hash
    with pytest.raises(UserError, match="another model"):
        build(folder, embedder, tmp_path / "index")


def test_a_folder_that_was_moved_keeps_its_embeddings(folder, embedder, tmp_path):
    build(folder, embedder, tmp_path / "index")
    folder.rename(tmp_path / "moved")
    report = build(tmp_path / "moved", embedder, tmp_path / "index")
    assert (report.new, report.unchanged) == (0, 11)
    assert open_index(tmp_path / "index").record["source"] == str(tmp_path / "moved")


def test_a_folder_with_another_name_keeps_its_embeddings(folder, embedder, tmp_path):
    build(folder, embedder, tmp_path / "index")
    (tmp_path / "link").symlink_to(folder)
    for name in (tmp_path / "link", tmp_path / "index" / ".." / folder.name):
        report = build(name, embedder, tmp_path / "index")
        assert (report.new, report.unchanged) == (0, 11)
        assert kept_index(open_source(str(name)), embedder) == kept_index(open_source(str(folder)), embedder)
    (tmp_path / "copy").mkdir()
    assert kept_index(open_source(str(tmp_path / "copy")), embedder) != kept_index(open_source(str(folder)), embedder)


def test_another_folder_does_not_replace_the_index_of_one_that_is_gone(folder, corpus, embedder, tmp_path):
    build(folder, embedder, tmp_path / "index")
    folder.rename(tmp_path / "unmounted")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "a.jpg").write_bytes(corpus["test"][30]["image"]["bytes"])
    with pytest.raises(UserError, match=str(folder)):
        build(tmp_path / "other", embedder, tmp_path / "index")
    assert len(open_index(tmp_path / "index")) == 11


def test_other_folders_and_a_folder_in_use_are_refused(folder, embedder, tmp_path):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="taken"):
        build(folder, embedder, tmp_path / "taken")
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match="file"):
        build(folder, embedder, tmp_path / "taken" / "thesis.txt")
    from filelock import FileLock

    (tmp_path / "index").mkdir()
    with FileLock(tmp_path / "index" / ".lock"), pytest.raises(UserError, match="another process"):
        build(folder, embedder, tmp_path / "index")


def test_a_corpus_is_indexed_by_split_and_a_row_that_moved_is_not_embedded_again(corpus_folder, embedder, tmp_path):
    source = open_source(str(corpus_folder), "test")
    assert build_index(source, embedder, tmp_path / "index").new == 36
    source.corpus["test"] = source.corpus["test"].select(range(35, -1, -1))
    report = build_index(source, embedder, tmp_path / "index")
    assert (report.unchanged, report.new, report.changed) == (36, 0, 0)
    index = open_index(tmp_path / "index")
    assert [index.entry(row)["row"] for row in range(36)] == list(range(36))
    assert index.entry(0)["path"] == source.corpus["test"][0]["image_id"]


def test_an_index_from_known_embeddings_is_current_for_the_command(corpus_folder, embedder, tmp_path):
    source = open_source(str(corpus_folder), "test")
    embeds = embedder.images(source.corpus["test"])
    write_corpus_index(tmp_path / "index", source, embedder, embeds)
    np.testing.assert_allclose(open_index(tmp_path / "index").embeds, unit(embeds.numpy()), atol=1e-6)
    assert build_index(source, embedder, tmp_path / "index").unchanged == 36
    write_corpus_index(tmp_path / "index", source, embedder, embeds.flip(1))
    np.testing.assert_allclose(open_index(tmp_path / "index").embeds, unit(embeds.flip(1).numpy()), atol=1e-6)


def test_known_embeddings_replace_no_index_of_other_images(folder, corpus_folder, embedder, tmp_path):
    build(folder, embedder, tmp_path / "index")
    source = open_source(str(corpus_folder), "test")
    with pytest.raises(UserError, match=str(folder)):
        write_corpus_index(tmp_path / "index", source, embedder, embedder.images(source.corpus["test"]))
    assert len(open_index(tmp_path / "index")) == 11


def test_scenes_are_indexed_in_tiles(tmp_path, embedder):
    (tmp_path / "scenes").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (150, 210, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "scenes" / "large.png")
    Image.fromarray(pixels[:30, :40]).save(tmp_path / "scenes" / "small.png")
    (tmp_path / "scenes" / "broken.tif").write_text("no image")
    Image.new("RGB", (300, 1)).save(tmp_path / "scenes" / "line.png")  # its tiles have one side 64 times the other
    report = build(tmp_path / "scenes", embedder, tmp_path / "index", tile=64, stride=48)
    assert (report.new, report.entries, sorted(report.left_out)) == (2, 16, ["broken.tif", "line.png"])
    index = open_index(tmp_path / "index")
    boxes = [index.entry(row)["box"] for row in range(16)]
    assert boxes[:5] == [[left, 0, left + 64, 64] for left in (0, 48, 96, 144, 146)]
    assert boxes[14:] == [[146, 86, 210, 150], [0, 0, 40, 30]]
    tile = Image.fromarray(pixels[86:150, 146:210])
    inputs = embedder.processor.image_processor([tile], return_tensors="pt")
    expected = unit(embedder.run(embedder.model.get_image_features, inputs).numpy())[0]
    np.testing.assert_allclose(index.embeds[14], expected, atol=1e-6)
    assert build(tmp_path / "scenes", embedder, tmp_path / "index", tile=64, stride=48).unchanged == 2


def test_a_corpus_cannot_be_cut_into_tiles(corpus_folder, embedder, tmp_path):
    with pytest.raises(UserError, match="tiles"):
        build(corpus_folder, embedder, tmp_path / "index", tile=64)


def test_two_processes_share_the_images(folder, model_folder, tmp_path):
    (folder / "broken.jpg").write_text("no image")
    environment = os.environ | {"PYTHONPATH": str(Path(rsmclip.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    environment |= {"ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "rsmclip"]
    options = ["--model", str(model_folder), "--output", str(tmp_path / "index"), "--batch_size", "2"]
    run = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": 240}
    done = subprocess.run([*launch, "index", str(folder), *options], **run)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("11 new") == 1 and done.stderr.count("left out: broken.jpg") == 1
    embedder = load_embedder(str(model_folder), batch_size=2)
    build(folder, embedder, tmp_path / "alone")
    shared, alone = by_path(open_index(tmp_path / "index")), by_path(open_index(tmp_path / "alone"))
    assert list(shared) == list(alone)
    for path, embeds in alone.items():
        np.testing.assert_allclose(shared[path], embeds, atol=1e-6)
    done = subprocess.run([*launch, "index", str(tmp_path / "none such"), *options], **run)
    assert done.returncode and "none such" in done.stderr


def test_an_index_that_is_not_complete_tells_how_to_continue(folder, embedder, tmp_path, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "embed_jobs", interrupted)
    with pytest.raises(KeyboardInterrupt):
        build_index(folder, embedder, tmp_path / "index")
    with pytest.raises(BadIndex, match="again"):
        open_index(tmp_path / "index")


def test_ctrl_c_tells_how_to_continue(folder, model_folder, tmp_path, capsys, monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "embed_jobs", interrupted)
    with pytest.raises(SystemExit) as end:
        main(["index", str(folder), "--model", str(model_folder), "--output", str(tmp_path / "index")])
    line = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 130 and line.startswith("interrupted: ") and "again" in line


def failing_shard(*arguments):
    raise UserError("a full disk")


@pytest.mark.parametrize("content", ["nothing", "no image", "a full disk"])
def test_a_run_that_embeds_nothing_leaves_nothing(content, folder, embedder, tmp_path, monkeypatch):
    if content == "a full disk":
        monkeypatch.setattr(module, "append_batch", failing_shard)
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    if content == "no image":
        (folder / "text.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    for name in ("index", "empty"):
        with pytest.raises(UserError):
            build(folder, embedder, tmp_path / name)
    assert not (tmp_path / "index").exists() and not any((tmp_path / "empty").iterdir())


def test_a_run_that_fails_keeps_what_it_embedded(folder, embedder, tmp_path, monkeypatch):
    append = module.append_batch
    with monkeypatch.context() as patch, pytest.raises(UserError, match="disk"):
        patch.setattr(module, "append_batch", lambda *given: (append(*given), failing_shard()))
        build(folder, embedder, tmp_path / "index")
    embedded, prepare = [], module.prepare
    monkeypatch.setattr(module, "prepare", lambda *given: embedded.append(given[2].picture.path) or prepare(*given))
    assert build(folder, embedder, tmp_path / "index").new == 11 and len(embedded) == 7


def test_the_command_prints_the_numbers_and_names_what_is_left_out(folder, model_folder, tmp_path, capsys):
    (folder / "bro\nken.jpg").write_text("no image")
    main(["index", str(folder), "--model", str(model_folder), "--output", str(tmp_path / "index")])
    printed = capsys.readouterr()
    assert "11 images" in printed.out and "1 left out" in printed.out
    assert any(line.startswith("left out: bro\\nken.jpg: ") for line in printed.err.splitlines())
    record = json.loads((tmp_path / "index" / "index.json").read_text())
    assert (record["source"], record["model"], record["images"]) == (str(folder), str(model_folder), 11)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        (["FOLDER", "--stride", "9"], "stride"),
        (["FOLDER", "--tile", "9", "--stride", "10"], "stride 10"),
        (["FOLDER", "--split", "test"], "test"),
        (["FOLDER", "--tile", "0"], "--tile"),
        (["EMPTY"], "EMPTY"),
    ],
)
def test_bad_input_is_one_line(options, culprit, folder, model_folder, tmp_path, capsys, monkeypatch):
    (tmp_path / "EMPTY").mkdir()
    monkeypatch.chdir(tmp_path)
    options = [str(folder) if option == "FOLDER" else option for option in options]
    with pytest.raises(SystemExit) as stop:
        main(["index", *options, "--model", str(model_folder), "--output", "index"])
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and error.startswith("error: ") and culprit in error
