"""Tokens in their real formats are found wherever they are; the project's own files have none."""

import subprocess
import sys
from pathlib import Path

import pytest

from rsmclip.core.command_line import run_command
from rsmclip.core.errors import UserError
from rsmclip.core.tokens import find_token, hide_tokens
from rsmclip.models.folder import HANDLER

A = "aB3xY7zK9mQ2wE5rT8uI1oP4sD6fG0hJ2kL5"
HEX = "0123456789abcdef" * 2 + "01234567"
SECRETS = {  # in two parts, so that no scanner takes this file for a leak
    **{f"hf{kind}": ("hf", f"_{kind}{A[:34]}") for kind in ("", "oauth_eyJ.", "jwt_eyJ.")},
    "api_org": ("api", "_org_" + A[:34]),
    "AWS": ("AK", "IAIOSFODNN7EXAMPLQ"),
    "AWS temporary": ("AS", "IAIOSFODNN7EXAMPLQ"),
    "AWS secret": ("aws_secret_access", "_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzKEY"),
    "AWS secret in JSON": ('"AWS_SECRET_ACCESS', '_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYzzzzzzzKEY"'),
    "wandb variable": ("WANDB_API", f"_KEY={HEX}"),
    "wandb in YAML": ("wandb_api", f"_key: {HEX}"),
    "wandb in JSON": ('"wandb', f'_key": "{HEX}"'),
    "netrc": ("machine api.wandb.ai\n  login user\n", f"  password {HEX}"),
    "wandb": ("wandb", f"_v1_{A}{A[:12]}"),
    **{f"GitHub {kind}": (f"gh{kind}", f"_{A[:36]}") for kind in "pousr"},
    "GitHub fine-grained": ("github", f"_pat_11ABCDEFG0{A}"),
    **{f"GitLab {kind}": (f"gl{kind}", f"-{A[:20]}") for kind in ("pat", "rt", "dt")},
    "Slack": ("xo", f"xb-123456789012-1234567890123-{A[:24]}"),
    "Slack app": ("xa", f"pp-1-A0123456789-1234567890123-{A}"),
    "Slack hook": ("https://hooks.slack", f".com/services/T01234567/B01234567/{A[:24]}"),
    **{
        f"{kind}private key": (f"-----BEGIN {kind}", "PRIVATE KEY-----")
        for kind in ("", "RSA ", "OPENSSH ", "ENCRYPTED ")
    },
    "PGP": ("-----BEGIN PGP ", "PRIVATE KEY BLOCK-----"),
    "password in a URL": ("https://user", ":s3cretPassw0rd@host.org/x"),
    "password of a database": ("postgresql://me", ":hunter2@db/x"),
    "proxy": ("http://alice", ":pa%40ss@proxy:3128"),
    "OpenAI": ("sk", f"-proj-{A}{A}"),
    "Anthropic": ("sk", f"-ant-api03-{A}{A}"),
    "npm": ("np", f"m_{A}"),
    "PyPI": ("py", f"pi-AgEIcHlwaS5vcmc{A}"),
    "Google": ("AI", f"za{A[:35]}"),
    "JSON Web Token": ("eyJhbGciOiJIUzI1NiJ9", f".eyJzdWIiOiIxMjM0NTY3ODkwIn0.{A}"),
    "Azure": ("Account", f"Key={(A * 3)[:86]}=="),
    "Comet": ("COMET_API", "_KEY=abcdefghijklmnopqrstuv123"),
    "MLflow": ("MLFLOW_TRACKING_PASS", "WORD=a-long-passw0rd"),
}


@pytest.mark.parametrize("secret", SECRETS)
@pytest.mark.parametrize("around", ["{}", "key_{}", r"one line\n{}\n", '{{"note": "{}"}}', "map-{}.jpg"])
def test_a_token_is_found_wherever_it_is(secret, around):
    text = around.format("".join(SECRETS[secret]))
    found = find_token(text)
    assert found and "".join(SECRETS[secret]) not in found
    assert "".join(SECRETS[secret]) not in hide_tokens(text)


HARMLESS = """
report_to: wandb
revision: 0123456789abcdef0123456789abcdef01234567
login(token="hf_..."), HF_TOKEN=$HF_TOKEN, HF_TOKEN=hf_xxx, api_key = "YOUR_WANDB_API_KEY_HERE", password=getpass()
https://huggingface.co/user/name@0123456, a-task-that-has-a-very-long-name-of-more-than-forty-letters, the shelf_life
{"pad_token": "<pad>", "secret": 12345, "▁password": -11.5, "access_key": null, "image_id": "AKIA"}
"""


def test_the_files_of_a_model_and_common_lines_have_no_token(tokenizer):
    root = HANDLER.parent.parent
    texts = [path.read_text(encoding="utf-8") for path in (HANDLER, *root.glob("*.py"), *root.glob("docs/*.md"))]
    for text in (*texts, tokenizer.backend_tokenizer.to_str(), *HARMLESS.splitlines()):
        assert not find_token(text)


def test_an_error_line_does_not_repeat_a_token(capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a token in no known form")
    token = "".join(SECRETS["hf"])

    def command():
        raise UserError(f"the server says: bad credentials {token}, and a token in no known form")

    with pytest.raises(SystemExit):
        run_command(command)
    line = capsys.readouterr().err
    assert "bad credentials hf_aB3…, and …" in line


def test_a_long_text_is_searched_in_time_that_grows_with_its_length():
    code = "from rsmclip.core.tokens import find_token; print([find_token(text * 20_000) for text in {texts!r}])"
    texts = ["aws key ", "://a", "wandb key ", "machine a login ", "secret: ", "eyJ", "hf_a", "gl", "-----BEGIN A"]
    command = [sys.executable, "-c", code.format(texts=texts)]
    assert "[None" in subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path.home()).stdout
