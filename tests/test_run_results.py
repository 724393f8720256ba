"""`eval_results.json` of a run: fields of the wrong type are named."""

import json
from typing import get_type_hints

import pytest

from rsmclip.core.errors import UserError
from rsmclip.eval.run_results import FILE_NAME, RunResults

EXAMPLES = {int: 3, float: 1.5, str: "x"}
HINTS = get_type_hints(RunResults)
GOOD = {name: EXAMPLES.get(kind, []) for name, kind in HINTS.items()}
GOOD |= {name: {} for name, kind in HINTS.items() if kind is dict or str(kind).startswith("dict")}
GOOD |= {name: None for name, kind in HINTS.items() if str(kind).endswith("None")}


@pytest.mark.parametrize("name", HINTS)
def test_a_field_of_another_type_is_named(name, tmp_path):
    (tmp_path / FILE_NAME).write_text(json.dumps(GOOD))
    assert RunResults.read(tmp_path) == RunResults(**GOOD)
    for value in (True, [3], {"en": 3}):
        if (name, value) == ("model", {"en": 3}) or (HINTS[name] is dict and isinstance(value, dict)):
            continue
        (tmp_path / FILE_NAME).write_text(json.dumps(GOOD | {name: value}))
        with pytest.raises(UserError, match=f"{FILE_NAME}: {name} "):
            RunResults.read(tmp_path)
