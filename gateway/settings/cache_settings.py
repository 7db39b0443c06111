"""The operator's choices about the cache: how much each tenant may keep, encryption, and the GPU for its index."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from core.errors import ConfigurationError
from policies.schema import says

MIB = 2**20
KEYS = "cache-keys"
AtLeastOne = Annotated[int, Meta(ge=1, le=10**9)]


class GpuEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """What the cache's index may take of one GPU."""

    enabled: Annotated[bool, says("Use the GPU where faiss-gpu is installed and the device is visible.")] = True
    device: Annotated[int, Meta(ge=0, le=63), says("Number of the device.")] = 0
    memory_mib: Annotated[AtLeastOne, says("What all indexes together may take of its memory.")] = 4_096
    temporary_mib: Annotated[AtLeastOne, says("What searches may take on top.")] = 128


class CacheStateEntry(Struct, frozen=True, forbid_unknown_fields=True):
    """How the cache keeps entries, for all tenants."""

    entries_per_tenant: Annotated[AtLeastOne, says("A tenant keeps at most as many entries.")] = 50_000
    mib_per_tenant: Annotated[AtLeastOne, says("A tenant's entries take at most as many MiB.")] = 256
    encrypt: Annotated[bool, says("Encrypt entries with a key per tenant, which its removal shreds.")] = False
    keys: Annotated[str | None, says("Folder of these keys, which replicas share; beside the state by default.")] = None
    gpu: Annotated[GpuEntry, says("The GPU for the largest parts of the index.")] = msgspec.field(
        default_factory=GpuEntry
    )


@dataclass(frozen=True, slots=True)
class GpuSettings:
    """What the index may take of one device, in bytes."""

    device: int = 0
    memory_bytes: int = 4_096 * MIB
    temporary_bytes: int = 128 * MIB


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """How the cache keeps entries; `keys` is the folder of the tenants' keys, None without encryption."""

    max_entries_per_tenant: int = 50_000
    max_bytes_per_tenant: int = 256 * MIB
    keys: Path | None = None
    gpu: GpuSettings | None = GpuSettings()


def cache_settings(entry: CacheStateEntry, file: str, base: Path, state_folder: Path) -> CacheSettings:
    """Return what `entry` of `file` means; paths start at `base`.

    Raises:
        ConfigurationError: a folder of keys is named and nothing is to be encrypted.
    """
    if entry.keys is not None and not entry.encrypt:
        problem = "names a folder of keys although nothing is encrypted"
        raise ConfigurationError(file, "cache.keys", problem, "add `encrypt: true` or remove the key")
    folder = state_folder / KEYS if entry.keys is None else base / entry.keys
    gpu = entry.gpu
    return CacheSettings(
        max_entries_per_tenant=entry.entries_per_tenant,
        max_bytes_per_tenant=entry.mib_per_tenant * MIB,
        keys=folder if entry.encrypt else None,
        gpu=GpuSettings(gpu.device, gpu.memory_mib * MIB, gpu.temporary_mib * MIB) if gpu.enabled else None,
    )
