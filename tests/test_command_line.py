"""Exit status and error lines of commands; help imports no heavy library."""

import os
import subprocess
import sys
from types import FunctionType

import pytest
import yaml

from rsmclip.core.command_line import OneLineParser, printable, run_command
from rsmclip.core.errors import UserError, extra, foreign_errors, user_errors
from rsmclip.core.files import write_whole

COMMANDS = [
    *("", "train", "data", "data build", "data translate", "data audit", "data demo"),
    *(
        "index",
        "search",
        "classify",
        "eval",
        "eval classes",
        "eval compare",
        "hub",
        "hub convert-openclip",
        "hub export-openclip",
        "hub export-onnx",
    ),
    *(
        "hub assemble",
        "hub interpolate",
        "hub teacher",
        "hub card",
        "hub push",
        "hub push-dataset",
        "hub space",
        "hub push-space",
    ),
]


def test_the_home_folder_is_expanded_in_every_argument_that_begins_with_it(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    parser = OneLineParser()
    commands = parser.add_subparsers(dest="command", parser_class=OneLineParser)
    command = commands.add_parser("build")
    command.add_argument("texts", nargs="*")
    command.add_argument("--source")
    parsed = parser.parse_args(["build", "--source=~/a", "imagefolder=~/b,captions=x", "~/c", "a ~ b", "~", "x~/y"])
    assert (parsed.source, parsed.texts) == (
        "/home/me/a",
        ["imagefolder=/home/me/b,captions=x", "/home/me/c", "a ~ b", "~", "x~/y"],
    )


def test_help_of_every_command_imports_nothing_heavy():
    heavy = {"torch", "datasets", "sklearn", "matplotlib", "gradio", "accelerate", "transformers.modeling_utils"}
    code = f"""
import sys
from rsmclip.__main__ import main
for command in {COMMANDS}:
    try:
        main([*command.split(), "--help"])
    except SystemExit as end:
        assert end.code in (0, None), (command, end.code)
    assert not {heavy} & set(sys.modules), (command, {heavy} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    usages = [line for line in done.stdout.splitlines() if line.startswith("usage: ")]
    for command, usage in zip(COMMANDS, usages, strict=True):
        assert usage.startswith(f"usage: rsmclip {command}")


def test_a_user_error_is_one_line_and_status_2(capsys):
    def command():
        raise UserError("row 3 of a.csv:\n no caption")

    with pytest.raises(SystemExit) as end:
        run_command(command, "rsmclip data")
    assert end.value.code == 2 and capsys.readouterr().err == "rsmclip data: error: row 3 of a.csv: no caption\n"


def test_control_characters_of_a_name_do_not_reach_the_terminal(capsys):
    """A file name can have them: colors, a bell, a carriage return that hides the line, bytes that are not UTF-8."""
    name = "a\x1b[2J\x07\r\udcff\u202e é.csv"

    def command():
        raise UserError(f"{name} has no rows")

    with pytest.raises(SystemExit):
        run_command(command)
    assert capsys.readouterr().err == "error: a\\x1b[2J\\x07 \\udcff\\u202e é.csv has no rows\n"
    with pytest.raises(SystemExit):
        OneLineParser(prog="x").parse_args([name])
    line = capsys.readouterr().err
    assert line.rstrip("\n").isprintable() and "\\x1b[2J" in line


def test_an_error_line_quotes_no_whole_file(capsys):
    def command():
        raise UserError("a.json: label is " + "x" * 10_000_000)

    with pytest.raises(SystemExit):
        run_command(command)
    error = capsys.readouterr().err
    assert error.startswith("error: a.json: label is x") and len(error) < 2100


def test_ctrl_c_is_status_130(capsys):
    def command():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as end:
        run_command(command)
    assert end.value.code == 130 and len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("kind", [ValueError, TypeError, KeyError, AttributeError, OSError, AssertionError])
def test_any_other_exception_is_a_bug_and_keeps_its_traceback(kind):
    def command():
        raise kind("planted")

    with pytest.raises(kind, match="planted"):
        run_command(command)


@pytest.mark.parametrize(
    "call",
    [
        *(f"rsmclip.__main__ import main; main({[*part.split(), '--help']})" for part in ("", "data build", "eval")),
        "rsmclip.core.command_line import run_command; run_command(lambda: print('a' * 100_000))",
    ],
)
def test_an_ended_reader_of_standard_output_is_status_141_without_a_traceback(call):
    """As in `rsmclip data --help | head -1`."""
    reader, writer = os.pipe()
    os.close(reader)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run([sys.executable, "-c", f"from {call}"], stdout=writer, stderr=subprocess.PIPE, env=buffered)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


@pytest.mark.parametrize("buffering", ["", "1"])
@pytest.mark.parametrize(
    "call",
    [
        *(f"rsmclip.__main__ import main; main({part.split()})" for part in ("--help", "data --help", "eval --help")),
        "rsmclip.core.command_line import run_command; run_command(lambda: print('a'))",
        "rsmclip.core.command_line import run_command; run_command(lambda: print('a' * 100_000))",
    ],
)
def test_standard_output_on_a_full_disk_is_one_line(call, buffering):
    with open("/dev/full", "w") as full:
        process = [sys.executable, "-c", f"from {call}"]
        env = os.environ | {"PYTHONUNBUFFERED": buffering}
        done = subprocess.run(process, stdout=full, stderr=subprocess.PIPE, text=True, env=env)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and "standard output" in line and "No space left" in line


def test_letters_that_the_terminal_does_not_have_are_escaped():
    call = "from rsmclip.core.command_line import run_command; run_command(lambda: print('río 강'))"
    done = subprocess.run(
        [sys.executable, "-c", call], capture_output=True, env=os.environ | {"PYTHONIOENCODING": "latin-1"}
    )
    assert (done.returncode, done.stdout) == (0, b"r\xedo \\uac15\n"), done.stderr


def test_a_closed_standard_output_is_no_error():
    call = "from rsmclip.core.command_line import run_command; run_command(lambda: print('a'))"
    done = subprocess.run(["sh", "-c", f'"{sys.executable}" -c "{call}" >&-'], stderr=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")


def test_only_the_named_exceptions_become_user_errors():
    with pytest.raises(UserError, match="a.json: no space left"), user_errors(OSError, prefix="a.json"):
        raise OSError("no space\nleft")
    with pytest.raises(KeyError), user_errors(OSError, prefix="a.json"):
        raise KeyError("bug")
    with pytest.raises(UserError) as first, user_errors(ValueError, prefix="outer"):
        raise UserError("inner")
    assert str(first.value) == "inner"


def test_a_missing_extra_says_how_to_install_it():
    with pytest.raises(UserError, match=r"\.\[geo\]"), extra("geo"):
        import package_that_does_not_exist  # noqa: F401
    with pytest.raises(ModuleNotFoundError), extra("geo"):
        import rsmclip.module_that_does_not_exist  # noqa: F401


def test_an_unknown_part_is_status_2():
    done = subprocess.run([sys.executable, "-m", "rsmclip", "tran"], capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and "tran" in done.stderr


def test_a_file_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder"):
        write_whole(tmp_path / "folder", "text")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_any_failure_of_another_library_is_one_line_but_a_bug_of_ours_keeps_its_traceback():
    with pytest.raises(UserError, match="a.yaml fails: AttributeError"), foreign_errors("a.yaml fails"):
        yaml.safe_load(3)
    with pytest.raises(UserError, match="a.yaml fails: .*zero"), foreign_errors("a.yaml fails"):
        FunctionType(compile("1 // 0", "template", "eval"), {})()  # code of a template engine belongs to no module
    with pytest.raises(TypeError), foreign_errors("a.yaml fails"):
        printable(3)


def test_a_closed_pipe_is_status_141_when_standard_output_was_replaced(monkeypatch, capfd):
    def command():
        raise BrokenPipeError

    with capfd.disabled():
        monkeypatch.setattr(sys, "stdout", open(os.dup(1), "w"))  # noqa: SIM115
        with pytest.raises(SystemExit) as end:
            run_command(command)
    assert end.value.code == 141


IN_A_GROUP = """
import atexit, os, sys
import torch
from rsmclip.core.command_line import run_command
from rsmclip.core.errors import UserError

class Witness:
    def __del__(self, write=os.write):
        write(2, b"interpreter ended")

def command():
    print("output")
    if sys.argv[2] == "error":
        raise UserError("bad")
    if sys.argv[2] == "bug":
        raise KeyError("a bug")
    sys.exit(int(sys.argv[2]))

sys.witness = Witness()
atexit.register(print, "exit handlers")
if sys.argv[1]:
    torch.distributed.init_process_group("gloo", init_method=f"file://{sys.argv[1]}", rank=0, world_size=1)
run_command(command)
"""


@pytest.mark.parametrize(("outcome", "status"), [("0", 0), ("3", 3), ("error", 2), ("bug", 1)])
@pytest.mark.parametrize("group", [False, True])
def test_a_process_of_a_group_ends_before_its_interpreter(tmp_path, group, outcome, status):
    # While the interpreter ends, gloo's threads would abort the process, or make it hang.
    command = [sys.executable, "-c", IN_A_GROUP, str(tmp_path / "store") if group else "", outcome]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert ended.returncode == status, ended.stderr
    assert "output" in ended.stdout and "exit handlers" in ended.stdout
    assert ("bad" in ended.stderr) == (outcome == "error") and ("Traceback" in ended.stderr) == (outcome == "bug")
    assert ("interpreter ended" in ended.stderr) == (not group)
