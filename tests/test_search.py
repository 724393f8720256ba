"""Search by text and by image against brute force, and the command line."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rsmclip.__main__ import main
from rsmclip.core.errors import UserError
from rsmclip.eval.build_index import build_index
from rsmclip.eval.index import open_index
from rsmclip.eval.models import load_embedder
from rsmclip.eval.search import search
from rsmclip.models.folder import save_model_folder


@pytest.fixture
def embedder(model_folder):
    return load_embedder(str(model_folder))


@pytest.fixture(scope="module")
def index_folder(model_folder, corpus_folder, tmp_path_factory):
    """An index of the test split by that model."""
    folder = tmp_path_factory.mktemp("indexes") / "index"
    build_index(corpus_folder, model_folder, folder, split="test")
    return folder


@pytest.fixture
def picture(corpus, tmp_path):
    path = tmp_path / "21 .jpg"
    path.write_bytes(corpus["test"][21]["image"]["bytes"])
    return path


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def paths(found):
    return [result.entry["path"] for result in found]


def test_text_image_and_both_find_what_their_embedding_is_nearest_to(embedder, corpus, index_folder, picture):
    images = unit(embedder.images(corpus["test"]).numpy())
    text = unit(embedder.texts(["река у леса"]).numpy())[0]
    queries = {("река у леса", None): text, (None, picture): images[21], ("река у леса", picture): text + images[21]}
    for query, vector in queries.items():
        scores = images @ unit(vector)
        order = np.argsort(-scores)[:4]
        found = search(index_folder, *query, top=4, model=embedder)
        assert paths(found) == [corpus["test"][int(row)]["image_id"] for row in order]
        np.testing.assert_allclose([result.score for result in found], scores[order], atol=2e-6)
    with Image.open(picture) as image:
        assert search(open_index(index_folder), image=image) == search(str(index_folder), image=str(picture))
    assert search(index_folder, image=picture)[0].score == pytest.approx(1, abs=1e-5)


def test_the_command_prints_paths_with_scores_and_draws_only_if_asked(
    index_folder, embedder, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    query = "um rio ao lado de uma floresta"
    main(["search", str(index_folder), query, "--top", "7"])
    found = search(index_folder, query, top=7, model=embedder)
    expected = [f"{n}  {result.score:.4f}  {result.entry['path']}" for n, result in enumerate(found, start=1)]
    assert capsys.readouterr().out.splitlines() == expected and not list(tmp_path.iterdir())
    main(["search", str(index_folder), query, "--top", "7", "--sheet", "made/sheet.PNG"])
    *lines, last = capsys.readouterr().out.splitlines()
    assert lines == expected and last.endswith("made/sheet.PNG")
    with Image.open(tmp_path / "made" / "sheet.PNG") as image:
        assert image.width == 1200 and np.asarray(image.convert("L")).std() > 20


@pytest.mark.parametrize(
    "order", ["I T --top 3 --image F", "I --image F --top 3 T", "--top 3 I T --image F", "--top 3 I --image F T"]
)
def test_index_text_and_options_have_any_order(order, index_folder, picture, embedder, capsys):
    values = {"I": str(index_folder), "T": "a port", "F": str(picture)}
    main(["search", *(values.get(part, part) for part in order.split()), "--json"])
    found = search(index_folder, "a port", picture, top=3, model=embedder)
    assert [result["path"] for result in json.loads(capsys.readouterr().out)] == paths(found)


def test_json_is_one_list_on_standard_output_and_nothing_else(index_folder, picture, tmp_path, capsys):
    sheet = str(tmp_path / "sheet.png")
    main(["search", str(index_folder), "--image", str(picture), "--json", "--sheet", sheet, "--top", "3"])
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [set(result) for result in found] == [{"path", "score"}] * 3
    assert [result["score"] for result in found] == sorted((result["score"] for result in found), reverse=True)
    assert sheet in printed.err


def test_tiles_have_box_and_coordinates(model_folder, tmp_path, capsys):
    import rasterio
    from rasterio.transform import from_origin

    (tmp_path / "scenes").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 100, 130), dtype=np.uint8)
    place = {"crs": "EPSG:4326", "transform": from_origin(10, 50, 0.1, 0.1), "photometric": "RGB"}
    size = {"height": 100, "width": 130, "count": 3, "dtype": "uint8"}
    with rasterio.open(tmp_path / "scenes" / "a b.tif", "w", driver="GTiff", **size, **place) as scene:
        scene.write(pixels)
    index = str(tmp_path / "index")
    main(["index", str(tmp_path / "scenes"), "--model", str(model_folder), "--output", index, "--tile", "64"])
    capsys.readouterr()
    main(["search", index, "a port", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 6 and all(set(result) == {"path", "score", "box", "coordinates"} for result in found)
    last = next(result for result in found if result["box"] == [66, 36, 130, 100])
    assert last["path"] == "a b.tif" and last["coordinates"] == pytest.approx([10 + 9.8, 50 - 6.8])
    main(["search", index, "a port", "--top", "2", "--sheet", str(tmp_path / "sheet.png")])
    assert "a b.tif  " in capsys.readouterr().out.splitlines()[0] and (tmp_path / "sheet.png").is_file()


def test_an_image_that_is_gone_is_named_and_the_others_are_drawn(model_folder, corpus, tmp_path, capsys):
    (tmp_path / "tiles").mkdir()
    for row in range(3):
        (tmp_path / "tiles" / f"{row}.jpg").write_bytes(corpus["test"][row]["image"]["bytes"])
    index = str(tmp_path / "index")
    main(["index", str(tmp_path / "tiles"), "--model", str(model_folder), "--output", index])
    (tmp_path / "tiles" / "1.jpg").unlink()
    main(["search", index, "a port", "--sheet", str(tmp_path / "sheet.png")])
    assert "1.jpg" in capsys.readouterr().err and (tmp_path / "sheet.png").is_file()


def test_a_search_loads_the_revision_and_type_that_made_the_index(model_folder, corpus_folder, tmp_path, monkeypatch):
    from huggingface_hub import constants

    commits = {"v1": "1" * 40, "main": "2" * 40}
    repository = tmp_path / "hub" / "models--lab--tiny"
    (repository / "refs").mkdir(parents=True)
    for name, commit in commits.items():
        (repository / "refs" / name).write_text(commit)
        shutil.copytree(model_folder, repository / "snapshots" / commit)
    config = repository / "snapshots" / commits["main"] / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"logit_scale_init_value": 1.0}))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    options = ["--revision", "v1", "--dtype", "bfloat16", "--split", "val", "--output", str(tmp_path / "index")]
    main(["index", str(corpus_folder), "--model", "lab/tiny", *options])
    main(["search", str(tmp_path / "index"), "a port"])


def test_a_model_that_moved_is_given_and_another_model_is_refused(
    model_folder, corpus_folder, tiny_model, tiny_processor, tmp_path, capsys
):
    shutil.copytree(model_folder, tmp_path / "first")
    index = str(tmp_path / "index")
    main(["index", str(corpus_folder), "--split", "val", "--model", str(tmp_path / "first"), "--output", index])
    (tmp_path / "first").rename(tmp_path / "second")
    with pytest.raises(SystemExit):
        main(["search", index, "a port"])
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(tmp_path / "first") in error and "--model" in error
    main(["search", index, "a port", "--model", str(tmp_path / "second")])
    tiny_model.logit_scale.data += 1
    save_model_folder(tiny_model, tiny_processor, tmp_path / "other")
    with pytest.raises(SystemExit):
        main(["search", index, "a port", "--model", str(tmp_path / "other")])
    error = capsys.readouterr().err.splitlines()[-1]
    assert str(tmp_path / "first") in error and str(tmp_path / "other") in error


def test_a_query_that_is_no_text_is_refused_in_python_too(index_folder):
    for text in (3, ["a port"], {"text": "a port"}):
        with pytest.raises(UserError, match="not a text"):
            search(index_folder, text)


def test_a_query_image_can_be_an_array(index_folder, picture, embedder):
    pixels = np.asarray(Image.open(picture))
    assert search(index_folder, image=pixels, model=embedder) == search(index_folder, image=picture, model=embedder)


@pytest.mark.parametrize(
    ("image", "culprit"),
    [
        ([Image.new("L", (9, 9))], "image.*list.*PIL"),
        (np.zeros(512, np.float32), "512"),
        (np.zeros((9, 9, 7), np.uint8), r"image.*\(9, 9, 7\)"),
        (np.full((9, 9), 300, np.uint16), "image.*16-bit"),
    ],
)
def test_a_query_that_is_no_image_is_refused(image, culprit, index_folder, embedder):
    with pytest.raises(UserError, match=culprit):
        search(index_folder, image=image, model=embedder)


def test_a_query_image_that_is_closed_is_refused(index_folder, picture, embedder):
    with Image.open(picture) as image:
        pass
    with pytest.raises(UserError, match="image.*open"):
        search(index_folder, image=image, model=embedder)


@pytest.mark.parametrize("top", [0, -1, 2.5, "5", None])
def test_a_number_of_results_that_is_no_number_is_refused(top, index_folder, embedder):
    with pytest.raises(UserError, match=f"top.*{top!r}.*1"):
        search(index_folder, "a port", top=top, model=embedder)
    assert len(search(index_folder, "a port", top=np.int64(3), model=embedder)) == 3


def test_arguments_of_other_types_are_named(index_folder, embedder):
    with pytest.raises(UserError, match=f"model.*{type(embedder.model).__name__}.*load_embedder"):
        search(index_folder, "a port", model=embedder.model)
    with pytest.raises(UserError, match="index.*Embedder.*index"):
        search(embedder, "a port", model=index_folder)


@pytest.mark.parametrize(
    ("arguments", "culprit"),
    [
        (["nowhere", "a port"], "nowhere"),
        (["INDEX"], "image"),
        (["INDEX", "  "], "empty"),
        (["INDEX", "um porto\udcff"], "UTF-8"),
        (["INDEX", "x" * 10_000_000], "10,000,000"),
        (["INDEX", "a port", "--top", "0"], "--top"),
        (["INDEX", "--image", "missing.jpg"], "missing.jpg"),
        (["INDEX", "--image", "README.txt"], "README.txt"),
        (["INDEX", "a port", "--sheet", "sheet.pdf"], "--sheet"),
        (["INDEX", "a port", "--model", "nowhere"], "nowhere"),
        ([], "INDEX"),
    ],
)
def test_bad_input_is_one_line(arguments, culprit, index_folder, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "README.txt").write_text("no image")
    with pytest.raises(SystemExit) as stop:
        main(["search", *(str(index_folder) if argument == "INDEX" else argument for argument in arguments)])
    assert stop.value.code == 2
    printed = capsys.readouterr().err.strip()
    assert printed.startswith("error: ") and culprit in printed and "\n" not in printed
    assert [path.name for path in tmp_path.iterdir()] == ["README.txt"]
