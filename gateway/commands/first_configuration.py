"""What `headgate init` writes: an operator's file, the defaults, and a first tenant, each with a few words."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from core.errors import ConfigurationError
from gateway.files import write_whole
from gateway.settings.operator import Settings, load_policy_set, load_settings
from policies.building import TENANT_NAME
from policies.documents import DEFAULTS as DEFAULTS_FILE


@dataclass(frozen=True, slots=True)
class Remote:
    """A provider's model for the large tier; without figures its price comes from the price table."""

    base_url: str
    model: str
    api_key_env: str | None = None
    input_usd_per_m: Decimal | None = None
    output_usd_per_m: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Choices:
    """What was asked."""

    tenant: str
    budget_usd: Decimal
    zone: str = "UTC"
    remote: Remote | None = None


def configuration_files(choices: Choices) -> dict[str, str]:
    """Return the text of each file by its path below the folder."""
    return {
        "headgate.yaml": _operator(choices.remote),
        "policies/tenants/defaults.yaml": DEFAULTS,
        f"policies/tenants/{choices.tenant}.yaml": _tenant(choices),
    }


def write_configuration(folder: Path, choices: Choices, *, force: bool) -> tuple[Path, ...]:
    """Write the files and read them as start-up would; without `force` nothing that exists is touched.

    Raises:
        ConfigurationError: a file exists, cannot be written, or an answer makes no sense; nothing new stays then.
    """
    if not TENANT_NAME.match(choices.tenant) or f"{choices.tenant}.yaml" == DEFAULTS_FILE:
        mend = "use up to 64 letters, digits and . _ -"
        raise ConfigurationError("--tenant", "", f"{choices.tenant[:80]!r} is not a tenant name", mend)
    texts = {folder / name: text for name, text in configuration_files(choices).items()}
    present = [path for path in texts if path.exists()]
    if present and not force:
        raise ConfigurationError(str(present[0]), "", "exists already", "choose another --dir, or add --force")
    before = {path: path.read_text(encoding="utf-8") for path in present}
    parents = {parent for path in texts for parent in path.parents}
    new_folders = sorted((parent for parent in parents if not parent.exists()), reverse=True)
    try:
        for path, text in texts.items():
            write_whole(path, text)
        _check(load_settings(folder / "headgate.yaml"), choices.tenant)
    except ConfigurationError:
        _undo(tuple(texts), before, new_folders)
        raise
    return tuple(texts)


def _undo(written: Sequence[Path], before: Mapping[Path, str], new_folders: Sequence[Path]) -> None:
    """Put back what was there, and remove what was not."""
    for path in written:
        path.unlink(missing_ok=True)
    for path, text in before.items():
        write_whole(path, text)
    for folder in new_folders:
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()


def _check(settings: Settings, tenant: str) -> None:
    if tenant not in load_policy_set(settings).tenants():
        raise ConfigurationError(str(settings.policies), tenant, "the tenant was not read", "choose another name")


def _operator(remote: Remote | None) -> str:
    large = "large-full: {recipe: bundled-large}" if remote is None else _remote(remote)
    name = "large-full" if remote is None else "cloud"
    return f"""# The operator's file: what listens, where state lies, which tiers exist and who serves them.
# Relative paths start at this file's folder. Every key: docs/configuration.md, or `headgate policy schema --operator`.
listen: 127.0.0.1:8080
admin: {{listen: 127.0.0.1:8081, key_file: var/admin.key}}
state: sqlite:var/headgate.db
policies: policies/tenants
router: {{pair: {"bundled" if remote is None else "general"}}}
tiers: {{small: [small-int4], large: [{name}]}}   # cheapest first; names and number are free
deployments:
  small-int4: {{recipe: bundled-small-int4}}
  {large}
  minilm: {{backend: encoder, price: {{input_usd_per_m: "0", output_usd_per_m: "0"}}}}   # /v1/embeddings
"""


def _remote(remote: Remote) -> str:
    lines = ["cloud:", "backend: remote", f"base_url: {_quoted(remote.base_url)}", f"model: {_quoted(remote.model)}"]
    if remote.api_key_env is not None:
        lines.append(f"api_key_env: {_quoted(remote.api_key_env)}   # the variable's name, never the key")
    if remote.input_usd_per_m is None or remote.output_usd_per_m is None:
        lines.append("price: table   # see `headgate prices list`")
    else:
        figures = f'input_usd_per_m: "{remote.input_usd_per_m:f}", output_usd_per_m: "{remote.output_usd_per_m:f}"'
        lines.append(f"price: {{{figures}}}")
    return "\n    ".join(lines)


DEFAULTS = """# What every tenant inherits. A tenant's file wins: mappings merge, lists replace, null takes away.
models: {auto: auto}
deployments: [minilm]
limits: {requests_per_minute: 600, tokens_per_minute: 200000, concurrency: 50}
service_class: interactive
sla:
  small: {ttft_ms: 5000, total_ms: 60000}
  large: {ttft_ms: 15000, total_ms: 120000}
cache: {semantic: true, max_false_hit_rate: 0.005}
max_output_tokens: 1024
on_store_outage: closed
when_loading: small
"""


def _tenant(choices: Choices) -> str:
    return f"""# Who pays, and for what. `headgate policy explain {choices.tenant}` shows all that is in force.
tenant: {_quoted(choices.tenant)}
models: {{gpt-4o: auto, gpt-4o-mini: auto}}   # names that apps already send
budgets:
  - window: month
    zone: {_quoted(choices.zone)}
    limit_usd: "{choices.budget_usd:f}"
    when_exhausted: small_only   # or reject, cache_only
    alerts: [0.8, 1.0]
"""


def _quoted(text: str) -> str:
    """Write text so that YAML reads the same text: JSON strings are YAML."""
    return json.dumps(text)
