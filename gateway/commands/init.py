"""`headgate init`: write a configuration and a first tenant, by asking a few questions or from flags."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.commands.options import Subparsers

if TYPE_CHECKING:
    from gateway.commands.first_configuration import Choices, Remote

DESCRIPTION = """Write headgate.yaml, policies/tenants/defaults.yaml and a first tenant's file.
What no flag says is asked; --yes takes the default instead. Files that exist
are never touched without --force."""
EXAMPLE = """examples:
  headgate init
  headgate init --dir gateway --tenant acme --budget-usd 50 --yes
  headgate init --yes --remote-url https://api.openai.com/v1 --remote-model gpt-4o --remote-key-env OPENAI_API_KEY"""


def add_parser(subparsers: "Subparsers[Any]") -> None:
    """Register the command."""
    parser = subparsers.add_parser(
        "init",
        help="write a configuration and a first tenant",
        description=DESCRIPTION,
        epilog=EXAMPLE,
    )
    parser.add_argument("--dir", type=Path, default=Path(), metavar="DIR", help="where the files go (default: here)")
    parser.add_argument("--tenant", metavar="NAME", help="the first tenant (default: my-app)")
    parser.add_argument("--budget-usd", metavar="USD", help="its budget a month (default: 10)")
    parser.add_argument("--zone", metavar="ZONE", help="IANA time zone in which the month begins (default: UTC)")
    parser.add_argument("--remote-url", metavar="URL", help="a provider for the large tier (default: a bundled model)")
    parser.add_argument("--remote-model", metavar="NAME", help="the model's name there")
    parser.add_argument("--remote-key-env", metavar="NAME", help="environment variable with the provider's key")
    parser.add_argument("--input-usd-per-m", metavar="USD", help="its price, when it is not in the price table")
    parser.add_argument("--output-usd-per-m", metavar="USD", help="likewise, per million output tokens")
    parser.add_argument("--yes", action="store_true", help="ask nothing")
    parser.add_argument("--force", action="store_true", help="replace files that exist")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Ask, write, and say what to do next."""
    from gateway.commands.first_configuration import write_configuration

    choices = _choices(arguments)
    for path in write_configuration(arguments.dir, choices, force=arguments.force):
        print(f"wrote {path}")
    print(_next_steps(arguments.dir, choices))
    return 0


def _choices(arguments: argparse.Namespace) -> "Choices":
    from gateway.commands.first_configuration import Choices

    ask = _taken if arguments.yes else _asked
    tenant = arguments.tenant or ask("Name of the first tenant (who pays)", "my-app")
    budget = arguments.budget_usd or ask("Its budget a month, in USD", "10")
    zone = arguments.zone or ask("Time zone in which the month begins", "UTC")
    url = arguments.remote_url
    if url is None:
        url = ask("URL of a provider for the large tier, up to /v1 (empty: a bundled model)", "")
    remote = _remote(arguments, url, ask) if url else None
    return Choices(tenant, _usd("--budget-usd", budget), zone, remote)


def _remote(arguments: argparse.Namespace, url: str, ask: Callable[[str, str], str]) -> "Remote":
    from core.errors import ConfigurationError
    from gateway.commands.first_configuration import Remote
    from policies.price_table import load_price_table

    model = arguments.remote_model or ask("The model's name there", "")
    if not model:
        raise ConfigurationError("--remote-model", "", "the provider's model has no name", "add --remote-model NAME")
    key_env = arguments.remote_key_env
    if key_env is None:
        key_env = ask("Environment variable that holds the provider's key (empty: none)", "")
    prices = arguments.input_usd_per_m, arguments.output_usd_per_m
    if prices == (None, None) and load_price_table().row(model) is not None:
        return Remote(url, model, key_env or None)
    figures = []
    for kind, given in zip(("input", "output"), prices, strict=True):
        usd = given or ask(f"Its price in USD per million {kind} tokens", "")
        if not usd:
            mend = "add --input-usd-per-m and --output-usd-per-m"
            raise ConfigurationError("--remote-model", "", f"the price table has no {model!r}", mend)
        figures.append(_usd(f"--{kind}-usd-per-m", usd))
    return Remote(url, model, key_env or None, *figures)


def _taken(question: str, default: str) -> str:
    return default


def _asked(question: str, default: str) -> str:
    from core.errors import ConfigurationError

    try:
        answer = input(f"{question}{f' [{default}]' if default else ''}: ").strip()
    except EOFError:
        raise ConfigurationError("standard input", "", "ended before an answer", "use --yes and flags") from None
    return answer or default


def _usd(flag: str, text: str) -> Any:
    from decimal import Decimal, InvalidOperation

    from core.errors import ConfigurationError

    try:
        usd = Decimal(text)
    except InvalidOperation:
        usd = Decimal("NaN")
    if not usd.is_finite() or not 0 <= usd <= 9_000_000:
        raise ConfigurationError(flag, "", f"{text[:40]!r} is not an amount in USD", "write for example 10 or 0.15")
    return usd


def _next_steps(folder: Path, choices: "Choices") -> str:
    config = folder / "headgate.yaml"
    option = "" if folder == Path() else f" --config {config}"
    key = choices.remote.api_key_env if choices.remote is not None else None
    export = f"  export {key}=...                     # the provider's key\n" if key else ""
    return f"""
next:
{export}  headgate policy check{option}
  headgate serve{option}
and in another terminal:
  KEY=$(headgate keys create --tenant {choices.tenant}{option})
  curl http://127.0.0.1:8080/v1/chat/completions -H "Authorization: Bearer $KEY" \\
    -H "Content-Type: application/json" \\
    -d '{{"model": "auto", "messages": [{{"role": "user", "content": "Hello"}}]}}'
docs/configuration.md explains every key."""
