"""One page of metrics of several workers: every series says whose it is, and what is one over all is shown once."""

from collections.abc import Iterator, Mapping

FIRST_ALONE = (
    "headgate_build_info",
    "headgate_budget_burn_ratio",
    "headgate_budget_limit_usd",
    "headgate_budget_remaining_usd",
    "headgate_budget_reserved_usd",
    "headgate_budget_spent_usd",
    "headgate_engine_",
    "headgate_gpu_",
    "headgate_sla_limit_seconds",
    "headgate_sla_objective_ratio",
)
"""Beginnings of names that the first worker alone shows: state of the whole gateway, and of its engines."""
EVERY_WORKER = ("headgate_engine_cost_usd_total",)
"""Among these, what every worker counts of its own requests."""
HELP = "# HELP "
UP = "headgate_worker_up"


def together(pages: Mapping[int, str | None]) -> str:
    """Return the pages as one in Prometheus' text format.

    Args:
        pages: by the worker's number, 0 being the first; None for one that did not answer.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for number, page in sorted(pages.items()):
        for family, lines in _families(page or ""):
            heads.setdefault(family, [line for line in lines if line.startswith("#")])
            told = (_told(line, family, number) for line in lines if not line.startswith("#"))
            samples.setdefault(family, []).extend(line for line in told if line is not None)
    families = (line for name, head in heads.items() if samples[name] for line in (*head, *samples[name]))
    return "\n".join([*families, *_up(pages)]) + "\n"


def _families(page: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each family, as its first line tells it, and its lines."""
    for block in page.split(HELP)[1:]:
        lines = (HELP + block).splitlines()
        yield block.partition(" ")[0], [line for line in lines if line]


def _told(line: str, family: str, number: int) -> str | None:
    """Return a worker's sample with its label; None for what the first alone shows."""
    if family.startswith(FIRST_ALONE) and family not in EVERY_WORKER:
        return line if number == 0 else None
    at = line.index(" ")
    brace = line.find("{", 0, at)
    if brace < 0:
        return f'{line[:at]}{{worker="{number}"}}{line[at:]}'
    return f'{line[: brace + 1]}worker="{number}",{line[brace + 1 :]}'


def _up(pages: Mapping[int, str | None]) -> list[str]:
    head = [f"# HELP {UP} Whether a worker answers.", f"# TYPE {UP} gauge"]
    return [*head, *(f'{UP}{{worker="{number}"}} {page is not None:d}' for number, page in sorted(pages.items()))]
