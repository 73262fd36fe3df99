"""The command line: serve, worker, mine, verify, calibrate, backends.

Exit codes: 0 fine, 1 a chain that doesn't verify (or a server that can't start), 2 bad usage.
"""

import argparse
import asyncio
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pow import __version__
from pow.cli import backends_report, calibration_report
from pow.errors import BackendError, InvalidArgument, InvalidChain, PowError, SettingsError
from pow.limits import DEFAULT_BLOCKS, MAX_DIFFICULTY, MAX_THREADS
from pow.mining.calibration import (
    DEFAULT_CHANCE,
    DEFAULT_MEASURE_SECONDS,
    MAX_BLOCKS,
    MAX_BUDGET_SECONDS,
    MIN_BUDGET_SECONDS,
    Measurement,
    calibrate,
    measure_rate,
)
from pow.mining.chain import DEFAULT_GENESIS, Chain, check_genesis, verify_chain
from pow.mining.miner import MiningProgress, mine_chain, shared_pool
from pow.mining.pool import MinerPool
from pow.scanning.backends import AUTO, active_backend, native_missing
from pow.settings import DEFAULT_HOST, DEFAULT_PORT, Settings
from pow.units import duration

OK, FAILED, USAGE = 0, 1, 2

_MAX_MEASURE_SECONDS = 3600

_NATIVE_MISSING = (
    "the native extension is missing, so hashlib scans, many times slower and on one core; "
    "to build it, install a C compiler and Python's headers, and install pow-mcp again"
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        code = int(options.run(options))
        sys.stdout.flush()  # here, where a reader that has gone away is dealt with
        return code
    except (InvalidArgument, SettingsError, BackendError) as error:
        return _complain(error, USAGE)
    except PowError as error:
        return _complain(error, FAILED)
    except KeyboardInterrupt:
        return 130  # what a shell reports for Ctrl-C
    except BrokenPipeError:
        # The reader of our output is gone; Python would complain again when it flushes at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _complain(error: Exception, code: int) -> int:
    print(f"pow-mcp: {error}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pow-mcp",
        description="A proof-of-work miner behind MCP tools.",
        epilog="Settings are read from the environment: MiningDifficulty, MaxDifficulty, MaxBlocks, MiningThreads, "
        "MiningFanOut, WaitBudgetSeconds, POW_BACKEND, TASKHUB_NAME, DURABLE_TASK_SCHEDULER_CONNECTION_STRING.",
    )
    parser.add_argument("--version", action=_Version, help="show the version and the active scan backend")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _add_serve(commands)
    _add_worker(commands)
    _add_mine(commands)
    _add_verify(commands)
    _add_calibrate(commands)
    _add_backends(commands)
    return parser


class _Version(argparse.Action):
    """--version, which loads the backends only when asked."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        try:
            print(f"pow-mcp {__version__} (backend {active_backend().name})")
        except BackendError as error:
            parser.exit(_complain(error, USAGE))
        if native_missing():
            print(f"pow-mcp: {_NATIVE_MISSING}", file=sys.stderr)
        parser.exit()


def _add_serve(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    serve = commands.add_parser(
        "serve",
        help="serve the MCP tools over HTTP",
        description="Serve the MCP tools at http://HOST:PORT/mcp until Ctrl-C. Work that was accepted goes on when "
        "the server is started again.",
    )
    serve.add_argument("--host", default=DEFAULT_HOST, help="address to listen on (default: %(default)s)")
    serve.add_argument(
        "--port",
        type=_integer(0, 65535),
        default=DEFAULT_PORT,
        help="port to listen on, 0 for a free one (default: %(default)s)",
    )
    serve.add_argument(
        "--allow-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a host name, beside localhost, that clients may use in the URL; may be repeated",
    )
    where = serve.add_mutually_exclusive_group()
    where.add_argument(
        "--state-dir",
        type=Path,
        default=_default_state_dir(),
        metavar="DIR",
        help="folder of the journal that outlives the server (default: %(default)s)",
    )
    where.add_argument("--ephemeral", action="store_true", help="keep nothing: work ends with the server")
    serve.set_defaults(run=_serve)


def _add_worker(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    worker = commands.add_parser(
        "worker",
        help="mine for servers on a Durable Task Scheduler",
        description="Take slices of work from the Durable Task Scheduler that DURABLE_TASK_SCHEDULER_CONNECTION_STRING "
        "names, until Ctrl-C. Start as many as there are machines, and set MiningFanOut to their number, here and at "
        "the server, so that they share each block.",
    )
    worker.set_defaults(run=_worker)


def _add_mine(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    mine = commands.add_parser(
        "mine",
        help="mine a chain here and now",
        description="Mine a chain and print it. The same arguments give the same chain on any backend and threads.",
    )
    mine.add_argument(
        "--difficulty",
        type=_integer(0, MAX_DIFFICULTY),
        metavar="BITS",
        help="leading zero bits of each hash, 0 to 256; one more doubles the work "
        f"(default: the setting MiningDifficulty, else {Settings().mining_difficulty})",
    )
    mine.add_argument(
        "--blocks", type=_integer(1, None), default=DEFAULT_BLOCKS, metavar="N", help="how many (default: %(default)s)"
    )
    mine.add_argument(
        "--genesis",
        type=_genesis,
        default=DEFAULT_GENESIS,
        metavar="TEXT",
        help="text that block 1 links to (default: %(default)s)",
    )
    mine.add_argument(
        "--threads",
        type=_integer(1, MAX_THREADS),
        metavar="N",
        help="threads to mine with (default: every usable core)",
    )
    mine.add_argument(
        "--backend", default=AUTO, metavar="NAME", help="scan backend (default: auto); see `pow-mcp backends`"
    )
    mine.add_argument("--json", action="store_true", help="print the chain as JSON and nothing else")
    mine.set_defaults(run=_mine)


def _add_verify(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    verify = commands.add_parser(
        "verify",
        help="check a chain",
        description="Check the links and the proof of work of a chain in JSON. Exit code 1 when it doesn't verify.",
    )
    verify.add_argument(
        "file", metavar="FILE", help="the chain's JSON, as `pow-mcp mine --json` prints it; - for standard input"
    )
    verify.add_argument(
        "--prove-smallest",
        action="store_true",
        help="prove too that each nonce is the smallest, which takes as long as mining did",
    )
    verify.add_argument("--json", action="store_true", help="print the verdict as JSON and nothing else")
    verify.set_defaults(run=_verify)


def _add_calibrate(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    calibrate = commands.add_parser(
        "calibrate",
        help="find the difficulty that fits a budget of seconds",
        description="Measure this machine's rate, and show how long chains take at the difficulties around the "
        "largest one that fits the budget. Leave the machine alone meanwhile: what else runs lowers the rate.",
    )
    calibrate.add_argument(
        "--budget",
        type=_number(
            f"a number of seconds from {MIN_BUDGET_SECONDS:g} to {MAX_BUDGET_SECONDS:g}",
            lambda seconds: MIN_BUDGET_SECONDS <= seconds <= MAX_BUDGET_SECONDS,
        ),
        metavar="SECONDS",
        help="what the whole chain may take "
        f"(default: the setting WaitBudgetSeconds, else {Settings().wait_budget_seconds:.0f})",
    )
    calibrate.add_argument(
        "--blocks",
        type=_integer(1, MAX_BLOCKS),
        default=DEFAULT_BLOCKS,
        metavar="N",
        help="blocks of the chain (default: %(default)s)",
    )
    calibrate.add_argument(
        "--chance",
        type=_number("a number above 0 and below 1", lambda chance: 0 < chance < 1),
        default=DEFAULT_CHANCE,
        metavar="P",
        help="wanted chance to be done within the budget (default: %(default)s)",
    )
    calibrate.add_argument(
        "--measure",
        type=_number(
            f"a number of seconds above 0 and at most {_MAX_MEASURE_SECONDS}",
            lambda seconds: 0 < seconds <= _MAX_MEASURE_SECONDS,
        ),
        default=DEFAULT_MEASURE_SECONDS,
        metavar="SECONDS",
        help="how long to measure the rate (default: %(default)g)",
    )
    calibrate.add_argument(
        "--threads",
        type=_integer(1, MAX_THREADS),
        metavar="N",
        help="threads to measure with (default: the setting MiningThreads, else every usable core)",
    )
    calibrate.add_argument(
        "--backend", default=AUTO, metavar="NAME", help="scan backend (default: auto); see `pow-mcp backends`"
    )
    calibrate.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the odds too, as .svg, .png or .pdf; needs matplotlib: pip install 'pow-mcp[plot]'",
    )
    calibrate.add_argument("--json", action="store_true", help="print the calibration as JSON and nothing else")
    calibrate.set_defaults(run=_calibrate)


def _add_backends(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    backends = commands.add_parser(
        "backends",
        help="list the scan backends",
        description="List the scan backends: whether this build has them, this processor supports them, and they pass "
        "their self-test; how many million hashes a second they do on one thread, measured for a millisecond or so; "
        "and which one is active: the fastest, unless POW_BACKEND=NAME chooses another.",
    )
    backends.add_argument("--json", action="store_true", help="print them as JSON and nothing else")
    backends.set_defaults(run=_backends)


def _serve(options: argparse.Namespace) -> int:
    # Imported here: the server's libraries take a second, and the other commands don't need them.
    from pow.web.process import ServeOptions, serve

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if native_missing():
        print(f"pow-mcp: {_NATIVE_MISSING}", file=sys.stderr)
    state_dir = None if options.ephemeral else options.state_dir
    settings = Settings.from_environment()
    allowed_hosts = (*options.allow_host, *settings.allowed_hosts)
    serve_options = ServeOptions(options.host, options.port, state_dir, allowed_hosts)
    asyncio.run(serve(settings, serve_options))
    return _left(settings)


def _worker(_: argparse.Namespace) -> int:
    # Imported here, as in _serve.
    from pow.cli.worker import work

    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    if native_missing():
        print(f"pow-mcp: {_NATIVE_MISSING}", file=sys.stderr)
    settings = Settings.from_environment()
    asyncio.run(work(settings))
    return _left(settings)


def _left(settings: Settings) -> int:
    """The exit code of a process whose work is put away; one that has worked for a scheduler ends here and now.

    Threads of the scheduler's SDK may wait for a scheduler that doesn't answer, and Python would wait for them.
    """
    if settings.scheduler_connection_string:
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(OK)
    return OK


def _mine(options: argparse.Namespace) -> int:
    difficulty = options.difficulty
    if difficulty is None:
        difficulty = Settings.from_environment().mining_difficulty
    with _ProgressLine() as progress:
        chain = mine_chain(
            options.genesis,
            difficulty=difficulty,
            blocks=options.blocks,
            threads=options.threads,
            backend=None if options.backend == AUTO else options.backend,
            progress=progress.show if sys.stderr.isatty() else None,
        )
    print(json.dumps(chain.to_dict(), ensure_ascii=False) if options.json else _table(chain))
    return OK


def _verify(options: argparse.Namespace) -> int:
    try:
        chain = Chain.from_dict(_read_json(options.file))
        verification = verify_chain(chain, search=_search_on_all_cores if options.prove_smallest else None)
        verdict: dict[str, Any] = {"valid": bool(verification), "blocks": verification.blocks}
        if not verification:
            verdict |= {"block": verification.block_index, "fault": verification.fault}
        message = verification.message
    except InvalidChain as error:
        verdict = {"valid": False, "fault": "not_a_chain"}
        message = str(error)
    if message:
        verdict["message"] = message
    if options.json:
        print(json.dumps(verdict, ensure_ascii=False))
    elif verdict["valid"]:
        proven = ", every nonce the smallest" if options.prove_smallest else ""
        print(f"valid: {len(chain.blocks)} block(s) at difficulty {chain.difficulty}{proven}")
    else:
        print(f"invalid: {message}")
    return OK if verdict["valid"] else FAILED


def _search_on_all_cores(prefix: bytes, start: int, stop: int, difficulty: int) -> int | None:
    return shared_pool().search(prefix, start, difficulty, stop=stop).nonce


def _calibrate(options: argparse.Namespace) -> int:
    settings = Settings.from_environment()
    budget = settings.wait_budget_seconds if options.budget is None else options.budget
    if not budget:
        raise InvalidArgument("the setting WaitBudgetSeconds is 0, which no chain fits into; give --budget SECONDS")
    if options.plot is not None:
        calibration_report.check_plot_file(options.plot)
    measurement = _measure(options, settings)
    calibration = calibrate(measurement.hashes_per_second, budget, options.blocks, options.chance)
    if options.json:
        print(json.dumps(calibration_report.as_dict(measurement, calibration), ensure_ascii=False))
    else:
        print(calibration_report.as_text(measurement, calibration, settings.max_difficulty))
    if options.plot is not None:
        calibration_report.write_plot(options.plot, measurement, calibration)
        if not options.json:
            print(f"\nThe plot is in {options.plot}")
    return OK


def _measure(options: argparse.Namespace, settings: Settings) -> Measurement:
    with MinerPool(options.threads or settings.mining_threads, options.backend) as pool, _ProgressLine() as line:

        def show(tried: int) -> None:
            line.write(f"measuring {pool.backend} on {pool.threads} thread(s): {tried / 1e6:,.1f} million hashes")

        return measure_rate(pool, options.measure, progress=show if sys.stderr.isatty() else None)


def _backends(options: argparse.Namespace) -> int:
    rows = backends_report.as_rows()
    if options.json:
        print(json.dumps(rows))
        return OK
    print(backends_report.as_text(rows))
    if native_missing():
        print(f"pow-mcp: {_NATIVE_MISSING}", file=sys.stderr)
    return OK


def _read_json(name: str) -> object:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise InvalidArgument(f"can't read {name}: {reason}") from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgument(f"{name} is not JSON: {error}") from error


def _table(chain: Chain) -> str:
    lines = [f"{len(chain.blocks)} block(s) from {chain.genesis!r} at difficulty {chain.difficulty}"]
    width = max(len(f"{block.nonce:,}") for block in chain.blocks)
    lines += [f"{block.index:4}  nonce {block.nonce:>{width},}  {block.hash}" for block in chain.blocks]
    return "\n".join(lines)


class _ProgressLine:
    """One line on a terminal that is written over and over, and wiped at the end."""

    _BAR = 20

    def __init__(self) -> None:
        self._shown = False

    def __enter__(self) -> "_ProgressLine":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def show(self, progress: MiningProgress) -> None:
        done = self._BAR * progress.blocks_done // progress.blocks_total
        left = progress.expected_seconds_left
        line = (
            f"{'█' * done}{'░' * (self._BAR - done)} {progress.blocks_done}/{progress.blocks_total} blocks  "
            f"{progress.rate / 1e6:.1f} million hashes/s  "
            # A search has no memory, so this doesn't count down within a block; it is still the best guess.
            f"{'' if left is None else f'about {duration(left)} left on average'}"
        )
        self.write(line)

    def write(self, line: str) -> None:
        print(f"\r{line}\033[K", end="", file=sys.stderr, flush=True)
        self._shown = True


def _default_state_dir() -> Path:
    """The user's state directory: XDG's on Linux, and where the others keep such things."""
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "pow-mcp"


def _integer(low: int, high: int | None) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not (
            text.isascii() and text.isdigit() and low <= int(text[:20]) and (high is None or int(text[:20]) <= high)
        ):
            allowed = f"from {low} to {high}" if high is not None else f"of at least {low}"
            raise argparse.ArgumentTypeError(f"must be an integer {allowed}, not {text!r}")
        return int(text[:20])

    return parse


def _number(allowed: str, accepts: Callable[[float], bool]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and accepts(value)):
            raise argparse.ArgumentTypeError(f"must be {allowed}, not {text!r}")
        return value

    return parse


def _genesis(text: str) -> str:
    try:
        return check_genesis(text)
    except InvalidArgument as error:
        raise argparse.ArgumentTypeError(str(error)) from error
