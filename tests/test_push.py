"""Pushes to the Hub, refusals and injected faults, against a server on loopback."""

import hashlib
import io
import json
import os
import pickle
import shutil
import signal
import threading
import time
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from urllib.request import urlopen

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load, load_file, save_file

from rsmclip import RSMCLIPConfig, RSMCLIPModel
from rsmclip.core.errors import UserError
from rsmclip.core.uploads import check_may_push, push_files
from rsmclip.data.push import push_corpus
from rsmclip.hub.__main__ import main
from rsmclip.hub.push import push_model
from rsmclip.models.folder import make_processor, save_model_folder
from tests.conftest import TINY
from tests.hub_server import CUT_OFF, UNANSWERED, Fault, HubServer, use_hub

MODEL = "user/model"
TOKEN = "hf_" + "aB3" * 11 + "x"  # in the form of a real one
CARD = '---\nlicense: mit\n---\n# Model\n\n`AutoModel.from_pretrained("USER/NAME", revision="REVISION")`\n'
COMMIT = "POST .*/commit/main"
MY_TOKEN = "a token in no known form"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer(root=tmp_path / "hub") as server:
        use_hub(monkeypatch, server.endpoint, MY_TOKEN)
        yield server


@pytest.fixture(scope="module")
def finished(tokenizer, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    sizes = TINY | {"text_config": TINY["text_config"] | {"vocab_size": len(tokenizer)}}
    save_model_folder(RSMCLIPModel(RSMCLIPConfig(**sizes)), make_processor(tokenizer, 32), folder)
    (folder / "README.md").write_text(CARD)
    for name in ("eval_results.json", "train_log.jsonl"):
        (folder / name).write_text("{}\n")
    (folder / "training_config.yaml").write_text("seed: 0\n")
    (folder / "training_curve.png").write_bytes(b"\x89PNG")
    return folder


@pytest.fixture
def folder(finished, tmp_path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def push(folder: Path, *arguments: object, **options: object) -> list[str]:
    """Push a model, check that its folder did not change, and return the printed lines."""
    before = contents(folder)
    try:
        with redirect_stdout(io.StringIO()) as printed:
            push_model(folder, MODEL, *arguments, **options)
    finally:
        assert contents(folder) == before
    return printed.getvalue().splitlines()


def tag_of(lines: list[str]) -> str:
    return lines[-1].split("'")[1]


def test_only_published_files_are_uploaded_and_unexpected_files_are_named(hub, folder):
    published = contents(folder)
    (folder / "checkpoints" / "step-4").mkdir(parents=True)
    (folder / "checkpoints" / "step-4" / "model.safetensors").write_bytes(b"of an earlier step")
    (folder / "trackers").mkdir()
    (folder / "my_runs").mkdir()
    for name in ("checkpoints/step-4/optimizer.bin", "pytorch_model.bin", "state.pkl", "my_runs/events", "weights.pt"):
        (folder / name).write_bytes(pickle.dumps({"a": 1}))
    for name in ("trackers/log", "dry_run.png", ".gitignore", ".env", "notes.txt", "helper.py"):
        (folder / name).write_text(TOKEN)
    lines = push(folder)
    left = ".env, helper.py, my_runs, notes.txt, pytorch_model.bin, state.pkl, weights.pt"
    assert lines[0].endswith(f": {left}")
    assert hub.commits[0].added == sorted(published) and len(hub.commits) == 1
    assert lines[1].startswith(f"{len(published)} files, ") and lines[1].endswith(hub.commits[0].sha)
    leaked = [path for path, content in hub.everything() if TOKEN.encode() in content or content[:1] == b"\x80"]
    assert not leaked


def test_the_card_names_its_repository_and_a_tag_that_pins_it(hub, folder):
    tag = tag_of(push(folder))
    pushed = contents(hub.revisions[MODEL][tag])
    expected = CARD.replace("USER/NAME", MODEL).replace("REVISION", tag)
    assert pushed.pop("README.md").decode() == expected
    assert (folder / "README.md").read_text() == CARD
    digest = hashlib.sha256()
    for name in sorted(pushed):
        digest.update(f"{name}\0{hashlib.sha256(pushed[name]).hexdigest()}\n".encode())
    assert tag == f"v-{digest.hexdigest()[:12]}"


def test_a_card_without_placeholders_is_uploaded_unchanged(hub, folder):
    (folder / "README.md").write_text("# Written by hand, with a REVISIONIST'S view\n")
    push(folder)
    assert contents(hub.repositories[MODEL]) == contents(folder)


def test_pushing_the_same_again_makes_no_commit_and_mends_a_missing_tag(hub, folder):
    tag = tag_of(push(folder))
    del hub.revisions[MODEL][tag]
    lines = push(folder)
    assert lines[0].startswith(f"nothing new: {hub.endpoint}/{MODEL} ")
    assert len(hub.commits) == 1 and tag in hub.revisions[MODEL]


def test_an_older_tag_still_gives_the_older_weights(hub, folder):
    old, before = tag_of(push(folder)), load_file(folder / "model.safetensors")
    changed = {name: weight + 1 for name, weight in before.items()}
    save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
    new = tag_of(push(folder))
    for tag, expected in ((old, before), (new, changed)):
        with urlopen(f"{hub.endpoint}/{MODEL}/resolve/{tag}/model.safetensors") as answer:
            found = load(answer.read())
        assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)


def test_shards_are_uploaded_and_replaced_by_a_single_file(hub, folder):
    single = (folder / "model.safetensors").read_bytes()
    model = RSMCLIPModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="100KB")
    shards = {name for name in contents(folder) if name.startswith("model-0")}
    assert len(shards) > 1
    push(folder)
    assert shards | {"model.safetensors.index.json"} <= contents(hub.repositories[MODEL]).keys()
    for name in (*shards, "model.safetensors.index.json"):
        (folder / name).unlink()
    (folder / "model.safetensors").write_bytes(single)
    (hub.repositories[MODEL] / "notes.txt").write_text("by hand")
    push(folder)
    assert contents(hub.repositories[MODEL]).keys() == contents(folder).keys() | {"notes.txt"}


def edit_weights(folder: Path, edit: Callable[[dict], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def edit_config(folder: Path, **fields: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def spoil(folder: Path, case: str) -> None:
    adapter = {"base_model_name_or_path": str(folder.parent / "base")}
    edits = {
        "no folder": lambda: folder.rename(folder.with_name("gone")),
        "no model": lambda: (folder / "config.json").unlink(),
        "other model": lambda: (folder / "config.json").write_text('{"model_type": "clip"}'),
        "no card": lambda: (folder / "README.md").unlink(),
        "pickle": lambda: (folder / "model.safetensors").write_bytes(pickle.dumps([1] * 100)),
        "no weights": lambda: (folder / "model.safetensors").rename(folder / "model.onnx"),
        "missing shard": lambda: (folder / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"logit_scale": "model-00001-of-00002.safetensors"}})
        ),
        "lost tensor": lambda: edit_weights(folder, lambda weights: weights.pop("visual_projection.weight")),
        "other shape": lambda: edit_config(folder, projection_dim=20),
        "bad size": lambda: edit_config(folder, projection_dim="20"),
        "no layers": lambda: edit_config(folder, vision_config={"num_hidden_layers": 0}),
        "unknown activation": lambda: edit_config(folder, vision_config={"hidden_act": "none such"}),
        "token": lambda: (folder / "train_log.jsonl").write_text(f'{{"note": "{"hf_" + "Zz9" * 11}x"}}'),
        "escaped token": lambda: (folder / "train_log.jsonl").write_text(json.dumps({"a": f"line\nhf_{'Zz9' * 11}x"})),
        "token in a name": lambda: (
            (folder / "examples").mkdir(),
            (folder / "examples" / f"hf_{'Zz9' * 11}x.jpg").write_bytes(b"an example"),
        ),
        "token in metadata": lambda: save_file(
            load_file(folder / "model.safetensors"),
            folder / "model.safetensors",
            metadata={"format": "pt", "log": f"key=hf_{'Zz9' * 11}x"},
        ),
        "path in metadata": lambda: save_file(
            load_file(folder / "model.safetensors"),
            folder / "model.safetensors",
            metadata={"format": "pt", "from": f"{Path.home()}/clip"},
        ),
        "own token": lambda: (folder / "training_curve.png").write_bytes(b"\x89PNG\xff" + MY_TOKEN.encode()),
        "home": lambda: (folder / "eval_results.json").write_text(json.dumps({"base_model": f"{Path.home()}/clip"})),
        "own path": lambda: (folder / "README.md").write_text(f"{CARD} trained in {folder}, and it worked"),
        "adapter": lambda: (
            (folder / "config.json").unlink(),
            (folder / "adapter_config.json").write_text(json.dumps(adapter)),
        ),
    }
    edits[case]()


@pytest.mark.parametrize(
    ("case", "named"),
    [
        ("no folder", "there is no folder"),
        ("no model", "config.json nor adapter_config.json"),
        ("other model", "'clip'"),
        ("no card", "README.md"),
        ("pickle", "model.safetensors"),
        ("no weights", "export-onnx"),
        ("missing shard", "model-00001-of-00002.safetensors"),
        ("lost tensor", "visual_projection.weight"),
        ("other shape", r"visual_projection.weight .*\(16, 32\).*\(20, 32\)"),
        ("bad size", "config.json"),
        ("no layers", "num_hidden_layers is 0"),
        ("unknown activation", "config.json .*'none such'"),
        ("token", r"train_log.jsonl .*\(hf_Zz9…\)"),
        ("escaped token", r"train_log.jsonl .*\(hf_Zz9…\)"),
        ("token in a name", r"examples/hf_Zz9….jpg .*\(hf_Zz9…\)"),
        ("token in metadata", r"model.safetensors .*\(hf_Zz9…\)"),
        ("path in metadata", f"model.safetensors .*{Path.home()}"),
        ("own token", "training_curve.png .* token"),
        ("home", "eval_results.json"),
        ("own path", "README.md"),
        ("adapter", "only this machine"),
    ],
)
def test_a_folder_that_cannot_be_published_is_refused_before_anything_is_sent(hub, folder, case, named):
    spoil(folder, case)
    with pytest.raises(UserError, match=named):
        push(folder)
    assert not hub.requests


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        *((COMMIT, 500), (COMMIT, 503), (COMMIT, 409), (COMMIT, 412), (COMMIT, 429)),
        *(("POST /api/repos/create", 500), ("GET /api/models/user/model", 502), ("POST .*/tag/", 500)),
    ],
)
def test_a_push_is_tried_again_after_two_temporary_refusals(hub, folder, request_, status):
    hub.faults.append(Fault(request_, status, times=2))
    tag = tag_of(push(folder))
    assert hub.faults[0].times == 0 and len(hub.commits) == 1 and tag in hub.revisions[MODEL]


def test_it_waits_as_long_as_the_hub_asks(hub, folder, monkeypatch):
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    hub.faults.append(Fault(COMMIT, 429, times=1, headers={"Retry-After": "7"}))
    push(folder)
    assert waits == [7.0]


@pytest.mark.parametrize("fault", [Fault("PUT /lfs/", CUT_OFF, times=1), Fault("PUT /lfs/", 500, times=2)])
def test_weights_are_sent_again_after_a_connection_that_broke_in_their_middle(hub, folder, fault):
    hub.faults.append(fault)
    push(folder)
    assert hub.faults[0].times == 0
    weights = contents(hub.repositories[MODEL])["model.safetensors"]
    assert weights == (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize("broken", [UNANSWERED, CUT_OFF])
def test_a_commit_whose_answer_is_lost_is_made_once(hub, folder, broken):
    hub.faults.append(Fault(COMMIT, broken, times=1))
    lines = push(folder)
    assert len(hub.commits) == 1 and lines[0].endswith(f"/commit/{hub.commits[0].sha}")


def test_a_pull_request_whose_answer_is_lost_is_not_opened_twice(hub, folder):
    hub.faults += [Fault(COMMIT, 412, times=1), Fault(COMMIT, UNANSWERED, times=1)]
    with pytest.raises(UserError, match="user/model .*connection"):
        push(folder, create_pr=True)
    assert [commit.revision for commit in hub.commits] == ["refs/pr/1"]
    hub.faults.append(Fault(COMMIT, 504, times=1))
    with pytest.raises(UserError, match="504 Gateway Timeout"):
        push(folder, create_pr=True)
    assert len(hub.commits) == 1


@pytest.mark.parametrize(
    ("request_", "status", "headers", "tries", "advice"),
    [
        ("POST /api/repos/create", 401, {}, 1, "hf auth login"),
        ("POST /api/repos/create", 403, {}, 1, "403 Forbidden: injected .*token.*permission"),
        ("PUT /lfs/", 403, {}, 1, "model.safetensors' to the Hub 403 Forbidden: injected .*token"),
        (COMMIT, 403, {}, 1, "403 Forbidden: injected .*token"),
        (COMMIT, 404, {}, 1, "no such repository or revision"),
        (COMMIT, 400, {}, 1, "injected"),
        (COMMIT, 409, {}, 5, "others committed"),
        (COMMIT, 412, {}, 5, "others committed"),
        (COMMIT, 429, {}, 5, "too many requests"),
        (COMMIT, 429, {"Retry-After": "3600"}, 1, "3600 seconds"),
        (COMMIT, 500, {}, 5, "500 Internal Server Error.*try again later"),
        (COMMIT, CUT_OFF, {}, 5, "connection"),
        ("POST /api/validate-yaml", 400, {}, 1, "README.md"),
    ],
)
def test_a_lasting_refusal_is_one_line_and_nothing_is_half_pushed(
    hub, folder, request_, status, headers, tries, advice
):
    hub.faults.append(Fault(request_, status, headers=headers))
    with pytest.raises(UserError, match=f"^user/model .*{advice}") as raised:
        push(folder)
    assert "\n" not in str(raised.value) and not hub.commits
    assert hub.requests.count(hub.requests[-1]) == tries


def test_a_hub_out_of_reach_is_an_error_at_once(folder, monkeypatch):
    use_hub(monkeypatch, "http://127.0.0.1:9", MY_TOKEN)
    monkeypatch.setattr(time, "sleep", lambda seconds: pytest.fail("it waited"))
    with pytest.raises(UserError, match="user/model .*refused"):
        push(folder)


def test_without_a_token_it_says_how_to_log_in(hub, folder, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no token.*HF_TOKEN"):
        push(folder)


def test_the_error_of_a_failed_tag_says_that_the_model_was_pushed(hub, folder):
    hub.faults.append(Fault("POST .*/tag/", 403))
    with pytest.raises(UserError, match="user/model was pushed, .* v-[0-9a-f]{12}.*403"):
        push(folder)
    assert len(hub.commits) == 1


def test_private_applies_to_new_repositories_and_a_line_says_so_for_others(hub, folder):
    push(folder, private=True)
    assert hub.private == {MODEL}
    hub.private.clear()
    assert "public" in push(folder, private=True)[0]
    assert not hub.private


def test_a_revision_is_a_branch_made_of_main(hub, folder):
    hub.repositories[MODEL] = hub.root / MODEL
    hub.repositories[MODEL].mkdir(parents=True)
    (hub.repositories[MODEL] / "notes.txt").write_text("by hand")
    push(folder, revision="trial")
    push(folder, revision="trial")
    assert [commit.revision for commit in hub.commits] == ["trial"]
    assert contents(hub.repositories[MODEL]).keys() == {"notes.txt"}
    assert contents(hub.revisions[MODEL]["trial"]).keys() == contents(folder).keys() | {"notes.txt"}


def test_a_pull_request_leaves_main_alone_and_its_card_says_main(hub, folder):
    lines = push(folder, create_pr=True)
    assert 'revision="main"' in lines[0]
    assert lines[1].endswith(f" MB: {hub.endpoint}/{MODEL}/discussions/1") and len(lines) == 2
    assert not contents(hub.repositories[MODEL])
    card = (hub.revisions[MODEL]["refs/pr/1"] / "README.md").read_text()
    assert 'revision="main"' in card and not any(name.startswith("v-") for name in hub.revisions[MODEL])


def test_a_space_is_made_with_its_sdk(hub):
    done = push_files({"app.py": b"print(1)\n"}, "user/app", "space", private=True, space_sdk="gradio")
    assert contents(hub.repositories["spaces/user/app"]) == {"app.py": b"print(1)\n"}
    assert hub.sdks["spaces/user/app"] == "gradio" and hub.private == {"spaces/user/app"}
    assert done.repo_url.repo_type == "space"


def test_only_card_and_shards_of_a_corpus_are_uploaded(hub, corpus_folder, tmp_path):
    folder = tmp_path / "corpus"
    (folder / "data").mkdir(parents=True)
    for name, content in (expected := contents(corpus_folder)).items():
        (folder / name).write_bytes(content)
    (folder / "data" / "cache.arrow").write_bytes(b"1")
    (folder / "audit.json").write_text("{}")
    push_corpus(folder, "user/captions", revision="v2")
    assert contents(hub.revisions["datasets/user/captions"]["v2"]) == expected
    with pytest.raises(UserError, match="README.md"):
        push_corpus(tmp_path, "user/captions")


@pytest.mark.parametrize("request_", ["POST /api/repos/create", "POST .*/preupload/"])
def test_whether_a_run_may_push_is_known_at_its_start(hub, request_):
    check_may_push(MODEL, private=True)
    assert hub.private == {MODEL} and not hub.commits
    hub.faults.append(Fault(request_, 403))
    with pytest.raises(UserError, match="user/other .*403 Forbidden"):
        check_may_push("user/other")


@pytest.mark.parametrize("name", ["examples/1.jpg", "examples", "tokenizer.json", "data", "README.md"])
def test_a_link_out_of_the_folder_is_not_followed(hub, folder, corpus_folder, tmp_path, name):
    corpus_copy, private = shutil.copytree(corpus_folder, tmp_path / "corpus"), tmp_path / "private"
    home = corpus_copy if name == "data" else folder
    (folder / "examples").mkdir()
    (folder / "examples" / "1.jpg").write_bytes(b"an example")
    (home / name).rename(private)
    (home / name).symlink_to(private)
    with pytest.raises(UserError, match=f"{home / name}.* link .*{private}"):
        push_corpus(corpus_copy, "user/corpus") if name == "data" else push(folder)
    assert not hub.requests


def test_a_folder_in_the_cache_of_the_hub_is_pushed(hub, folder, tmp_path):
    snapshot, blobs = tmp_path / "models--a--b" / "snapshots" / ("0" * 40), tmp_path / "models--a--b" / "blobs"
    shutil.copytree(folder, blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    push(snapshot)
    assert contents(hub.repositories[MODEL]).keys() == contents(folder).keys()


def test_a_token_that_the_server_repeats_is_not_shown(hub, folder):
    hub.faults += [Fault("POST .*/create", 403, message=f"the token {TOKEN} or {MY_TOKEN} is wrong")]
    with pytest.raises(UserError, match="403|Forbidden") as error:
        push(folder)
    assert TOKEN not in str(error.value) and MY_TOKEN not in str(error.value)


def test_a_corpus_with_a_token_in_its_card_is_not_pushed(hub, corpus_folder, tmp_path):
    folder = shutil.copytree(corpus_folder, tmp_path / "corpus")
    with (folder / "README.md").open("a") as card:
        card.write(f"made with {TOKEN}")
    with pytest.raises(UserError, match="README.md.*token"):
        push_corpus(folder, "user/corpus")
    assert not hub.requests


def test_an_id_without_a_user_is_refused(folder):
    with pytest.raises(UserError, match="'model'.*USER/NAME"):
        push_model(folder, "model")


def test_the_commands_print_what_was_pushed_and_where_it_is(hub, folder, corpus_folder, capsys):
    main(["push", str(folder), MODEL, "--private"])
    main(["push-dataset", str(corpus_folder), "user/captions", "--create_pr"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{len(contents(folder))} files, ")
    assert lines[0].endswith(f" MB: {hub.endpoint}/{MODEL}/commit/{hub.commits[0].sha}")
    assert lines[1].startswith("revision='v-")
    assert lines[2].endswith(f" MB: {hub.endpoint}/datasets/user/captions/discussions/1") and len(lines) == 3
    assert hub.private == {MODEL}


def test_ctrl_c_is_one_line_and_leaves_no_commit(hub, folder, capsys, request):
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for jobs in the background
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, usual))
    before = contents(folder)
    with hub.lock, pytest.raises(SystemExit, match="130"):  # the server answers nothing
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
        main(["push", str(folder), MODEL])
    assert capsys.readouterr().err == "interrupted\n"
    assert not hub.commits and contents(folder) == before


def test_an_adapter_replaces_a_whole_model(hub, folder):
    push(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").rename(folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "user/base"}')
    push(folder)
    assert hub.commits[1].deleted == ["config.json", "model.safetensors"]
    assert contents(hub.repositories[MODEL]).keys() == contents(folder).keys()
    described = folder / "processor_config.json"
    described.write_text(json.dumps(json.loads(described.read_text()) | {"auto_map": {"AutoProcessor": "a/b--c.D"}}))
    with pytest.raises(UserError, match="processor_config.json.*auto_map"):
        push(folder)


def test_a_token_that_may_write_but_make_no_repository_is_enough_for_one_that_exists(hub, folder):
    push(folder)
    hub.faults.append(Fault("POST /api/repos/create", 403))
    (folder / "README.md").write_text("# Another card\n")
    push(folder)
    assert hub.commits[1].added == ["README.md"]
