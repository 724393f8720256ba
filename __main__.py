"""The entry point `rsmclip`: `rsmclip data …`, `rsmclip eval …`, `rsmclip hub …`, `rsmclip train …`.

`python -m rsmclip …` is the same. Each part parses its own options; this file only finds it.
"""

import sys
from importlib import import_module

PARTS = {  # module with `main(arguments)`, and its line of help
    "data": ("rsmclip.data.__main__", "build, translate, audit and push corpora; draw the demo"),
    "train": ("rsmclip.training.__main__", "train a model; every field of the configuration is an option"),
    "eval": ("rsmclip.eval.__main__", "evaluate, compare and search with a model"),
    "hub": ("rsmclip.hub.__main__", "convert, export, show and publish a model"),
}
USAGE = "usage: rsmclip {data,train,eval,hub} … (rsmclip PART --help lists the options of a part)"


def main(arguments: list[str] | None = None) -> None:
    """Run the part that the first argument names."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE + "\n\n" + "\n".join(f"  {name:8}{text}" for name, (_, text) in PARTS.items()))
        return
    if arguments[0] not in PARTS:
        print(f"error: no part {arguments[0]!r}; {USAGE}", file=sys.stderr)
        sys.exit(2)
    import_module(PARTS[arguments[0]][0]).main(arguments[1:])


if __name__ == "__main__":
    main()
