"""The `thresher` command: its verbs, its exit codes, and what happens to errors.

Exit codes: 0 done, 2 the user's error (one sentence on stderr), 75 the machine ended part of the
work, or a disk or share is away for a time (run the same command again to complete it), 130
interrupted and 143 terminated (run the same command again to continue), 1 an internal error.
"""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from typing import Annotated, NamedTuple

import typer
from typer.exceptions import TyperException

from thresher.cli import leaving, signals
from thresher.cli.addresses import resolve_addresses
from thresher.cli.advise import advise
from thresher.cli.cache import cache_app
from thresher.cli.command import App
from thresher.cli.compare import compare
from thresher.cli.correct import correct
from thresher.cli.curate import curate_app
from thresher.cli.curate_job import log_line
from thresher.cli.curate_job import register as register_jobs
from thresher.cli.curve import curve
from thresher.cli.doctor import doctor
from thresher.cli.methods import methods
from thresher.cli.output import print_block, print_line
from thresher.cli.report import report
from thresher.cli.score import score
from thresher.cli.select import select
from thresher.cli.streams import guard_streams
from thresher.cli.train import train
from thresher.cli.tune import tune
from thresher.cli.usage import describe_usage_error
from thresher.cli.warm_up import prepare_kernels
from thresher.errors import (
    TEMPORARY,
    USER_ERROR,
    ProblemsError,
    ThresherError,
    describe_os_error,
    find_exit_code,
    is_panic,
    is_storage_error,
)
from thresher.numeric.compilation import announce_compilation
from thresher.printable import clean_foreign_messages

_COMPLETION = "_THRESHER_COMPLETE"  # set by a shell that asks for completions
_HOME = re.compile(r"^(--[\w-]+=)?~(?=/|$)")

app = App(
    name="thresher",
    help="Which rows should I fine-tune on, and how many are enough?",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for verb in (select, score, methods):
    app.command(rich_help_panel="Which rows?")(verb)
for verb in (advise, curve, compare):
    app.command(rich_help_panel="Is it worth it, and how many rows are enough?")(verb)
app.add_typer(curate_app, name="curate", rich_help_panel="Are the rows clean?")
app.command(rich_help_panel="Are the rows clean?")(correct)
for verb in (train, tune):
    app.command(rich_help_panel="How do I train on them?")(verb)
app.command(rich_help_panel="What came of it?")(report)
app.command(rich_help_panel="This machine")(doctor)
app.add_typer(cache_app, name="cache", rich_help_panel="This machine")
app.command("warm-up", hidden=True)(prepare_kernels)
register_jobs(curate_app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from thresher import __version__

        print_line(f"thresher {__version__}")
        raise typer.Exit


@app.callback()
def _top(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Which rows should I fine-tune on, and how many are enough?"""


def run() -> None:
    """Run the command line and exit with the code that fits."""
    guard_streams()
    leaving.begin()
    signals.unwind_on_signals()
    clean_foreign_messages()
    try:
        code = main(sys.argv[1:])
    except SystemExit as ending:
        if not isinstance(ending.code, int | None):
            raise
        code = ending.code or 0
    leaving.leave(code)


def main(arguments: list[str]) -> int:
    """Run one command and return its exit code; a user's error becomes one sentence."""
    reporter = _ErrorReporter(is_debug="--debug" in arguments, is_json="--log-json" in arguments)
    try:
        words = resolve_addresses([_expand_home(word) for word in arguments if word != "--debug"])
        if not {"--quiet", "-q"} & set(words):
            announce_compilation(partial(print_line, err=True))
        code = app(args=words, prog_name="thresher", standalone_mode=False)
        sys.stdout.flush()
    except (SystemExit, BrokenPipeError) as ending:
        # The reader of our output has gone, for which typer would exit with 1: nothing is wrong.
        # Keep Python from complaining when it flushes at exit.
        if not isinstance(ending, BrokenPipeError) and not isinstance(ending.__context__, BrokenPipeError):
            return reporter.end(ending)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ThresherError as error:
        return reporter.fail(str(error), find_exit_code(error), is_block=isinstance(error, ProblemsError))
    except TyperException as error:
        sentence = describe_usage_error(error)
        return reporter.fail(sentence) if sentence else error.exit_code
    except OSError as error:
        if not is_storage_error(error):
            return reporter.crash(error)
        code = find_exit_code(error)
        return reporter.fail(_describe_storage_error(error, is_temporary=code == TEMPORARY), code)
    except BaseException as error:  # noqa: BLE001 - the last place that can tell an internal error from a user's
        return reporter.crash(error)
    if code == 130:
        return reporter.leave(code)
    return code if isinstance(code, int) else 0


def _describe_storage_error(error: OSError, *, is_temporary: bool) -> str:
    where = f"{error.filename or _find_lost_folder()}: ".removeprefix(": ")
    then = "wait until it is back" if is_temporary else "fix that"
    return f"{where}could not be written or read: {describe_os_error(error)}; {then} and run the same command again"


def _find_lost_folder() -> str:
    """Return "the current folder" where it is gone: the system names no path then."""
    try:
        os.getcwd()
    except OSError:
        return "the current folder"
    return ""


def _expand_home(word: str) -> str:
    """Expand a leading ~, which the shell leaves alone in --out=~/chosen."""
    return _HOME.sub(lambda match: f"{match[1] or ''}{os.path.expanduser('~')}", word)


class _ErrorReporter(NamedTuple):
    """Reports how a command ended: as a sentence, as an object of the log, or by its traceback."""

    is_debug: bool
    is_json: bool

    def fail(self, sentence: str, code: int = USER_ERROR, *, is_block: bool = False) -> int:
        if self.is_debug:
            raise  # the error that is being handled by the caller
        return self.report(sentence, code, prefix="thresher: ", is_block=is_block)

    def crash(self, error: BaseException) -> int:
        is_internal = isinstance(error, Exception) or is_panic(error)  # else, it ends the process
        if self.is_debug or not is_internal:
            raise error
        code = signals.find_received()
        if code is not None:  # a library that was interrupted made another error of it
            return self.leave(code)
        if isinstance(error, MemoryError):
            detail = f" ({error})" if str(error) else ""
            return self.fail(f"memory ran out{detail}; run the same command again with more of it to continue")
        sentence = f"internal error: {type(error).__name__}: {error}"
        return self.report(
            f"{sentence}; run again with --debug for the traceback, and report it", 1, prefix="thresher: "
        )

    def end(self, ending: SystemExit) -> int:
        """Report what has ended the command: a signal, or code that took it for its own process."""
        code = signals.find_received()
        if code is not None:
            return self.leave(code)
        if self.is_debug or _COMPLETION in os.environ:  # which ends so
            raise ending
        sentence = f"internal error: a plug-in or library ended the process (SystemExit: {ending.code})"
        return self.report(f"{sentence}; run again with --debug for the traceback", 1, prefix="thresher: ")

    def leave(self, code: int) -> int:
        """Report a signal by its exit code."""
        return self.report(signals.describe_signal(code), code)

    def report(self, sentence: str, code: int, *, prefix: str = "", is_block: bool = False) -> int:
        if self.is_json:
            log_line("error", "error", sentence, {"exit_code": code})
        else:
            (print_block if is_block else print_line)(f"{prefix}{sentence}", err=True)
        return code
