"""What the benchmarks of latency share: a gateway before scripted upstreams, a table, and the report that is kept."""

import json
import os
import platform
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.e2e.gateway_process import RunningGateway, run_gateway, write_configuration

Row = dict[str, object]
PRICE = "{input_usd_per_m: 1, output_usd_per_m: 2}"
OPERATOR = """
listen: 127.0.0.1:8080
admin: {listen: 127.0.0.1:8081, key_file: var/admin.key}
state: sqlite:var/headgate.db
policies: tenants
router: {pair: general}
"""


def deployment(base_url: str, model: str = "m", more: str = "") -> str:
    """Return the entry of a scripted upstream; its script may stand in `model`."""
    return f'{{backend: remote, base_url: {base_url}, model: "{model}", price: {PRICE}{more and ", " + more}}}'


def start_gateway(
    stack: ExitStack,
    tiers: Mapping[str, Sequence[str]],
    deployments: Mapping[str, str],
    tenants: Mapping[str, str],
    more: str = "",
) -> RunningGateway:
    """Start a gateway that ends with `stack`.

    Args:
        stack: what else ends with it.
        tiers: the deployments of each, cheapest first.
        deployments: their entries, as `deployment` writes them.
        tenants: what each policy says beside the tenant's name; none uses the cache.
        more: further keys of the operator's file.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    lists = ", ".join(f"{tier}: [{', '.join(names)}]" for tier, names in tiers.items())
    entries = "".join(f"  {name}: {entry}\n" for name, entry in deployments.items())
    operator = f"{OPERATOR}tiers: {{{lists}}}\ndeployments:\n{entries}{more}\n"
    policies = {name: f"tenant: {name}\ncache: {{enabled: false}}\n{more}\n" for name, more in tenants.items()}
    write_configuration(folder, operator, policies)
    return stack.enter_context(run_gateway(folder))


def show(title: str, rows: Sequence[Row]) -> None:
    """Print the figures, one run a column."""
    table = Table(title=title)
    first = next(iter(rows[0]))
    table.add_column(first)
    for row in rows:
        table.add_column(str(row[first]), overflow="fold")
    for name in dict.fromkeys(name for row in rows for name in row if name != first):
        table.add_row(name, *(str(row.get(name, "")) for row in rows))
    Console().print(table)


def keep(file: Path | None, benchmark: str, arguments: str, facts: Row, rows: Sequence[Row]) -> None:
    """Write the report where one is wanted, with the command and the machine it was made with."""
    if file is None:
        return
    report = {
        "benchmark": benchmark,
        "command": f"python -m benchmarks.{benchmark} {arguments}",
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        **facts,
        "rows": rows,
    }
    file.write_text(json.dumps(report, indent=1) + "\n")
