"""`headgate engines list | logs | reload | sleep | wake`: the engines that a running gateway hosts."""

import argparse
import time
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers, add_admin_url, add_config, add_json
from gateway.commands.printing import print_json

if TYPE_CHECKING:
    from gateway.admin.client import AdminClient

FOLLOW_S = 0.5
RELOAD_POLL_S = 0.2
NUMBERS = ("requests", "queued", "tokens/s", "TTFT ms", "restarts", "failures")
RELOAD_WORDS = {
    "starting": "the new process starts and warms up; the old one serves",
    "draining": "the new process serves; the old one finishes its requests",
    "in place": "there is room for one process only: drained, then started anew",
}


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "engines",
        help="show the engines of the running gateway and what they wrote, reload them, let them sleep",
        description="Talks to the admin listener of the running gateway with the admin key file.",
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="show every engine's state", epilog="example: headgate engines list")
    add_json(listing)
    listing.set_defaults(run=run_list)
    logs = actions.add_parser(
        "logs", help="print what an engine last wrote", epilog="example: headgate engines logs small-int4 -f"
    )
    logs.add_argument("name", metavar="NAME", help="the engine's deployment")
    logs.add_argument("-n", "--lines", type=int, default=0, metavar="N", help="only the last N lines")
    logs.add_argument("-f", "--follow", action="store_true", help="go on printing until Ctrl-C")
    logs.set_defaults(run=run_logs)
    sleep = actions.add_parser(
        "sleep",
        help="let an engine give its memory back until a request wants it",
        description="Returns at once. The engine takes no new requests and first finishes those under way, for ten "
        "minutes at most; `headgate engines list` shows when it sleeps.",
        epilog="example: headgate engines sleep large-full",
    )
    wake = actions.add_parser("wake", help="wake a sleeping engine", epilog="example: headgate engines wake large-full")
    for action in (sleep, wake):
        action.add_argument("name", metavar="NAME", help="the engine's deployment")
        action.set_defaults(run=run_change)
        add_json(action)
    reload = actions.add_parser(
        "reload",
        help="replace an engine's process by a new one without failing a request",
        epilog="example: headgate engines reload large-full",
    )
    reload.add_argument("name", metavar="NAME", help="the engine's deployment")
    reload.add_argument("--no-wait", action="store_true", help="only ask for it, and do not follow how far it comes")
    add_json(reload)
    reload.set_defaults(run=run_reload)
    for action in (listing, logs, sleep, wake, reload):
        add_admin_url(action)
        add_config(action)


def run_list(arguments: argparse.Namespace) -> int:
    """Print every engine."""
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        return print_engines(client.get("/admin/engines")["engines"], as_json=arguments.json)


def run_logs(arguments: argparse.Namespace) -> int:
    """Print an engine's lines, and those to come when asked."""
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        path = f"/admin/engines/{_quoted(arguments.name)}/logs"
        answer = client.get(path)
        for line in answer["lines"][-arguments.lines :]:
            print(line)
        while arguments.follow:
            time.sleep(FOLLOW_S)
            answer = client.get(f"{path}?after={answer['next']}")
            for line in answer["lines"]:
                print(line, flush=True)
    return 0


def run_change(arguments: argparse.Namespace) -> int:
    """Let an engine sleep or wake, and print it."""
    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        row = client.post(f"/admin/engines/{_quoted(arguments.name)}/{arguments.action}", {})
    return print_engines([row], as_json=arguments.json)


def run_reload(arguments: argparse.Namespace) -> int:
    """Reload an engine and follow how far it comes; 1 when the new process did not become ready."""
    from rich.console import Console

    from gateway.admin.client import open_client

    with open_client(arguments.config, arguments.admin_url) as client:
        path = f"/admin/engines/{_quoted(arguments.name)}/reload"
        before = next((row for row in _rows(client) if row["name"] == arguments.name), None)
        row = client.post(path, {})
        if arguments.no_wait or before is None or row["state"] == "sleeping":
            return print_engines([row], as_json=arguments.json)
        with Console(stderr=True).status("asked for") as status:
            while not _is_over(row, before):
                status.update(RELOAD_WORDS.get(row["reload"]["stage"], row["state"]))
                time.sleep(RELOAD_POLL_S)
                row = next(row for row in _rows(client) if row["name"] == arguments.name)
    print_engines([row], as_json=arguments.json)
    is_done = row["generation"] > before["generation"]
    if not is_done and not arguments.json and row["reload"]["problem"]:
        Console().print(f"{row['name']}: {row['reload']['problem']}", markup=False, highlight=False)
    return 0 if is_done else 1


def _is_over(row: dict[str, Any], before: dict[str, Any]) -> bool:
    """Tell whether the reload is done or failed, also where a failed engine was merely started."""
    if row["reload"]["number"] > before["reload"]["number"]:
        stage: str = row["reload"]["stage"]
        return stage in ("done", "failed")
    started: bool = row["generation"] > before["generation"]
    failed: bool = row["failures"] > before["failures"]
    return before["state"] != "ready" and (started or failed)


def _rows(client: "AdminClient") -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = client.get("/admin/engines")["engines"]
    return rows


def _quoted(name: str) -> str:
    from urllib.parse import quote

    return quote(name, safe="")


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.0f}"


def print_engines(rows: list[dict[str, Any]], *, as_json: bool) -> int:
    """Print engines as the admin listener tells them; what they are doing fits into 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if as_json:
        print_json(rows)
        return 0
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column in ("engine", "state", *NUMBERS):
        table.add_column(column, no_wrap=True, justify="right" if column in NUMBERS else "left")
    for row in rows:
        work = [_figure(row["work"][name]) for name in ("queued", "output_tokens_per_s", "ttft_ms")]
        numbers = [str(row["requests"]), *work, *(str(row[name]) for name in ("restarts", "failures"))]
        table.add_row(row["name"], row["state"], *numbers)
    console.print(table)
    for row in rows:
        place = f"{row['kind']} on {', '.join(row['devices'])}, {row['memory_bytes'] / 2**20:.0f} MiB"
        console.print(f"{row['name']}: {row['recipe']}, {place}", markup=False, highlight=False)
        if row["last_error"]:
            console.print(f"{row['name']}: {row['last_error']}", markup=False, highlight=False, style="red")
    return 0
