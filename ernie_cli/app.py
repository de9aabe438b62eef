"""The commands in story order, and `main`: the one border that turns errors into text and an exit code."""

from __future__ import annotations

import atexit
import errno
import importlib
import io
import os
import signal
import sys
from typing import Any

import typer
import typer.core

from . import __version__, console
from .errors import ErnieError, Terminated

#: The order is the story that `ernie --help` tells. Each is a module in commands/ with a function of the same name.
COMMANDS = ("download", "convert", "quantize", "build", "inspect", "run", "eval", "devices", "doctor")

#: click's ClickException, two steps above BadParameter. typer vendors click from 0.27 on: reach it through typer's own name.
_ClickException: type[Exception] = typer.BadParameter.__mro__[2]
_AGAIN = "the same command continues where this one stopped, or starts clean"


def _common_options() -> list[Any]:
    """--json, -q and -v, which every command has and no signature repeats."""

    def json_on(ctx: Any, param: Any, value: bool) -> None:
        console.settings.json = bool(value)

    def louder(ctx: Any, param: Any, value: int) -> None:
        if value:
            console.settings.verbosity = value

    def quieter(ctx: Any, param: Any, value: bool) -> None:
        if value:
            console.settings.verbosity = -1

    option = typer.core.TyperOption
    common: dict[str, Any] = {"expose_value": False}
    return [
        option(param_decls=["--json"], is_flag=True, callback=json_on, help="Print the result as one JSON object.", **common),
        option(param_decls=["-v", "--verbose"], count=True, type=int, callback=louder, help="Say more.", **common),
        option(param_decls=["-q", "--quiet"], is_flag=True, callback=quieter, help="Say only what went wrong.", **common),
    ]


def _version(value: bool) -> None:
    if value:
        console.result(f"ernie {__version__}")
        raise typer.Exit()


def build(names: tuple[str, ...] = COMMANDS) -> Any:
    """The command line with the commands in `names`; the others are not even imported."""
    app = typer.Typer(
        name="ernie",
        no_args_is_help=True,
        rich_markup_mode=None,  # importing rich would make help on a terminal half as slow again, and it eats `[cpu]` as markup
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="ERNIE 4.5 from download to a fast engine: download → convert → quantize → build → run.",
    )

    @app.callback()
    def root(
        version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
    ) -> None:
        pass

    for name in names:
        module = importlib.import_module(f".commands.{name}", __package__)
        app.command(name, **getattr(module, "COMMAND", {}))(getattr(module, name))
    group = typer.main.get_command(app)
    for command in group.commands.values():  # type: ignore[attr-defined]
        command.params.extend(_common_options())
    return group


def main(argv: list[str] | None = None) -> int:
    """Run one command line (default: this process's) and return its exit code. Never raises, never shows a traceback
    unless ERNIE_DEBUG=1."""
    argv = sys.argv[1:] if argv is None else argv
    console.settings.json, console.settings.verbosity = False, 0
    named = tuple(word for word in argv[:1] if word in COMMANDS)  # the fast path: import only the command that was named
    try:
        code = build(named or COMMANDS).main(args=argv, prog_name="ernie", standalone_mode=False)
        if code == 130:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0
    except ErnieError as err:
        return _fail(err.exit_code, err.message, err.hint)
    except _ClickException as err:
        return _fail_usage(err)
    except (KeyboardInterrupt, typer.Abort):
        return _fail(130, "interrupted", _AGAIN)
    except Terminated as err:
        return _fail(err.exit_code, "terminated", _AGAIN)
    except MemoryError as err:
        return _fail(7, f"out of memory: {err}", "a smaller batch or context needs less; `ernie doctor` shows what is free")
    except (BrokenPipeError, SystemExit) as err:
        # The reader of our stdout has gone (`ernie … | head`): nobody is left to tell. Inside a command click makes it exit with 1.
        if not isinstance(err if isinstance(err, OSError) else err.__context__, BrokenPipeError):
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141  # 128 + SIGPIPE, what a shell reports of any program that this happens to
    except OSError as err:
        return _fail_os(err)
    except Exception as err:  # noqa: BLE001 — this is the border: nothing may pass it
        return _fail_bug(err)


def _fail(code: int, message: str, hint: str = "") -> int:
    if os.environ.get("ERNIE_DEBUG"):
        import traceback

        traceback.print_exc()
    console.error(message, hint)
    return code


def _fail_usage(err: Any) -> int:
    context = getattr(err, "ctx", None)
    path = context.command_path if context else "ernie"
    message = err.format_message()
    if not message:  # `ernie` alone: typer raises "no args" after it printed the help itself
        return 2
    return _fail(2, message, f"`{path} --help` lists what it takes")


def _fail_os(err: OSError) -> int:
    where = f"{err.filename}: " if err.filename else ""
    what = f"{where}{err.strerror or err}"
    if err.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):  # the last one: `ulimit -f`, or what the disk's format allows
        return _fail(7, what, "free some space, or choose another place with -o")
    if err.errno == errno.ENOMEM:
        return _fail(7, what, "close other programs; `ernie doctor` shows what is free")
    if err.filename or err.errno == errno.EIO:  # what the system says about a file is no bug of ours
        return _fail(3, what, "check the path and who may read and write it")
    return _fail_bug(err)


def _fail_bug(err: Exception) -> int:
    hint = "set ERNIE_DEBUG=1 to see where, and please report it with the command you typed"
    return _fail(1, f"this is a bug in ernie, sorry: {type(err).__name__}: {err}", hint)


def entry() -> None:
    """The console script."""
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:  # closed (`>&-`): a file opened next would take its number, and what is printed
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
            setattr(sys, name, open(descriptor, "w"))  # noqa: SIM115 (for as long as the process lives)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or pipe that cannot show 中 gets \u4e2d, not a failure
            stream.reconfigure(errors="backslashreplace")
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup has them ignored
            signal.signal(number, _terminate)
    _leave(main())


def _terminate(number: int, frame: object) -> None:
    """Put away what is half done, as after Ctrl-C, undisturbed by a second signal."""
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise Terminated(number)


def _leave(code: int) -> None:
    """End the process at once, after what was registered for its end and what is left to be printed.

    Freeing all that torch and onnx have loaded, object by object, takes Python half a second; mypy leaves the same way.
    """
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # who read it has gone, or a full disk: what could be said of it has been said
            code = code or 1
    os._exit(code)
