"""Find tokens, keys and passwords in texts that will be published, and hide them in lines that are printed.

Rule sets such as detect-secrets 1.5 do not know the tokens of Hugging Face, Weights & Biases and Google, and miss some
of GitHub, npm and Anthropic; so these patterns are our own.
"""

import re

from huggingface_hub import get_token

SHORTEST_TOKEN = 8  # characters; a shorter one may be part of any text
# A token may follow `\n`, escaped in JSON, or `_`, so no pattern begins at a word boundary. Each begins with fixed
# letters, and they are searched one by one: joined, they take minutes for a tokenizer.
PATTERNS = [
    re.compile(pattern, re.DOTALL)
    for pattern in (
        r"hf_(?:oauth_|jwt_)[\w.-]{20,}",
        r"hf_[A-Za-z0-9]{30,}",
        r"api_org_[A-Za-z0-9]{30,}",
        r"AKIA[0-9A-Z]{16}(?![0-9A-Za-z])",  # AWS
        r"ASIA[0-9A-Z]{16}(?![0-9A-Za-z])",  # AWS, temporary
        r"wandb_v\d_\w{40,}",
        r"gh[pousr]_[A-Za-z0-9]{36}",
        r"github_pat_\w{22,}",
        r"gl(?:pat|rt|dt|ptt|cbt)-[\w-]{20,}",  # GitLab
        r"xox[abeoprs]-[\w-]{10,}",  # Slack
        r"xapp-\d-[\w-]{10,}",
        r"hooks\.slack\.com/services/T\w+/B\w+/\w+",
        r"AIza[\w-]{35}",  # Google
        r"sk-(?:(?<![A-Za-z0-9]sk-)|(?<=\\nsk-))(?:proj-|ant-)?[A-Za-z0-9_-]{32,}",
        r"npm_[A-Za-z0-9]{36}",
        r"pypi-[\w-]{50,}",
        r"eyJ[\w-]{10,500}\.eyJ[\w-]{10,5000}\.[\w-]{10,}",  # JSON Web Token; unbounded, it would take quadratic time
        r"AccountKey=[A-Za-z0-9/+=]{80,}",  # Azure
        r"-----BEGIN [A-Z ]*PRIVATE KEY(?: BLOCK)?-----",
        r"://[^\s/:@\"'<>]+:[^\s/:@\"'<>{}$]+@[\w.-]+",  # password in a URL
        r"machine\s+\S+\s+login\s+\S+\s+password\s+\S+",  # netrc
        *(rf"{name}(?i:.{{0,20}}(?:secret|key).{{0,9}}[\"'=: ])[\w/+]{{40}}(?![\w/+=])" for name in ("aws", "AWS")),
        *(
            rf"{name}(?i:.{{0,40}}?(?:key|password|token).{{0,9}}?)(?<![0-9a-f])[0-9a-f]{{40}}(?![0-9a-f])"
            for name in ("wandb", "WANDB")
        ),
        # A value with a digit: without one, it may be the placeholder of an example.
        *(
            rf"{name}\\?[\"']?\s*[:=]\s*\\?[\"']?(?=[\w./+-]*\d)[\w./+-]{{12,}}"
            for lower in ("api_?key", "api_?token", "auth_?token", "access_?key", "secret", "passw(?:or)?d")
            for name in (lower, lower.upper())
        ),
    )
]


def find_token(text: str) -> str | None:
    """Return the beginning of what looks like a token in a text, or `None`."""
    own_token = get_token() or ""
    if len(own_token) >= SHORTEST_TOKEN and own_token in text:
        return "your token for the Hub"
    found = next(filter(None, (pattern.search(text) for pattern in PATTERNS)), None)
    return f"{found[0][:6]}…" if found else None


def hide_tokens(text: str) -> str:
    """Return a text without tokens: a server may repeat them in its error message."""
    own_token = get_token() or ""
    text = text.replace(own_token, "…") if len(own_token) >= SHORTEST_TOKEN else text
    for pattern in PATTERNS:
        text = pattern.sub(lambda found: f"{found[0][:6]}…", text)
    return text
