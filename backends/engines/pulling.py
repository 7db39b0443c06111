"""Fetches weights from the model hub into the models folder, checks every digest that the hub tells, and notes them.

Nothing half fetched is ever found under the final name. No code from the repository runs, and the client's usage
telemetry is off.
"""

import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from backends.engines.recipes import EngineKind, HubSource
from core.errors import ConfigurationError, HeadgateError

NOTE = "pulled.json"
BLOCK_BYTES = 4 << 20
COMMON = ("*.json", "*.jinja", "*.txt", "*.model")
WANTED: dict[EngineKind, tuple[str, ...]] = {
    "openvino": (*COMMON, "*.xml", "*.bin"),
    "llama-server": ("*.gguf",),
}
HUGGING_FACE = (*COMMON, "*.safetensors")
UNWANTED = ("original/*", "metal/*", "onnx/*")
Say = Callable[[str], None]


class PullFailed(HeadgateError):
    """The weights could not be fetched; the message says why and what helps."""

    code = "pull_failed"


class PulledFile(msgspec.Struct, frozen=True):
    """One file as the hub described it; small files have no SHA-256 there, so it is ours."""

    path: str
    size_bytes: int
    sha256: str


class Pulled(msgspec.Struct, frozen=True):
    """What `pulled.json` beside the weights says: where they come from, and each file's digest."""

    repo: str
    commit: str
    files: list[PulledFile]


def pull(source: HubSource, kind: EngineKind, folder: Path, say: Say) -> Pulled:
    """Fetch a repository's files into `folder`, which must not exist yet.

    Args:
        source: repository, revision, and which files where not all are wanted.
        kind: the engine, which decides about the files otherwise.
        folder: appears whole or not at all; what an interrupted pull fetched is used by the next.
        say: told what happens.

    Raises:
        PullFailed: the hub is away, refuses, or sent something else than it described.
        ConfigurationError: the folder exists.
    """
    if folder.exists():
        raise ConfigurationError(str(folder), "", "exists already", "remove it to fetch it anew, or use it as it is")
    patterns = tuple(source.files) or WANTED.get(kind, HUGGING_FACE)
    partial = folder.with_name(f".{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    commit, digests = _fetched(source, patterns, partial, say)
    shutil.rmtree(partial / ".cache", ignore_errors=True)
    say("checking digests")
    files = list(_checked(partial, digests, source.repo))
    if not files:
        raise PullFailed(f"{source.repo} has no files like {', '.join(patterns)}; correct the recipe's hub.files")
    pulled = Pulled(source.repo, commit, files)
    (partial / NOTE).write_bytes(msgspec.json.format(msgspec.json.encode(pulled), indent=2) + b"\n")
    partial.rename(folder)
    return pulled


def read_note(folder: Path) -> Pulled | None:
    """Return what `pull` noted, None where it did not fetch the folder."""
    try:
        return msgspec.json.decode((folder / NOTE).read_bytes(), type=Pulled)
    except (OSError, msgspec.MsgspecError):
        return None


def verify(folder: Path, pulled: Pulled, recipe: str) -> None:
    """Compare every file with what was pulled.

    Raises:
        ConfigurationError: one is missing or differs.
    """
    for file in pulled.files:
        path = folder / file.path
        if not path.is_file():
            what = f"{path} is missing"
        elif _sha256(path) != file.sha256:
            what = f"{path} is not what was pulled from {pulled.repo}"
        else:
            continue
        mend = "remove the folder and run `headgate models pull` again"
        raise ConfigurationError(f"recipe {recipe}", "weights", what, mend)


def _fetched(source: HubSource, patterns: tuple[str, ...], partial: Path, say: Say) -> tuple[str, dict[str, str]]:
    """Download, and return the commit with the SHA-256 of every large file."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    try:
        api = HfApi()
        described = api.model_info(source.repo, revision=source.revision, files_metadata=True)
        commit = described.sha or source.revision
        digests = {file.rfilename: file.lfs.sha256 for file in described.siblings or [] if file.lfs is not None}
        say(f"fetching {source.repo} at {commit[:12]} from {api.endpoint}")
        snapshot_download(
            source.repo,
            revision=commit,
            local_dir=partial,
            allow_patterns=list(patterns),
            ignore_patterns=list(UNWANTED),
        )
    except HfHubHTTPError as problem:
        raise PullFailed(_refused(source.repo, problem.response.status_code)) from problem
    except OfflineModeIsEnabled as problem:
        raise PullFailed("HF_HUB_OFFLINE is set; unset it to fetch weights") from problem
    except Exception as problem:  # the client lets through what its HTTP library raises, another one each year
        why = " ".join(str(problem).split())[:200] or type(problem).__name__
        mend = "check the network, set HF_ENDPOINT to a mirror, or copy the files there yourself"
        raise PullFailed(f"{source.repo} cannot be fetched ({why}); {mend}") from problem
    return commit, digests


def _refused(repo: str, status: int) -> str:
    if status in (401, 403):
        return f"the hub refuses {repo} (status {status}); accept its licence there and set HF_TOKEN"
    if status == 404:
        return f"the hub has no {repo}, or not that revision; correct the recipe's hub.repo and hub.revision"
    return f"the hub answers {status} for {repo}; try again later"


def _checked(partial: Path, digests: dict[str, str], repo: str) -> Iterator[PulledFile]:
    """Yield every file with its digest; one that is not what the hub described is removed."""
    for path in sorted(path for path in partial.rglob("*") if path.is_file() and path.name != NOTE):
        name, digest = path.relative_to(partial).as_posix(), _sha256(path)
        if digests.get(name, digest) != digest:
            path.unlink()
            raise PullFailed(f"{name} of {repo} is not what the hub describes; it was removed, pull again")
        yield PulledFile(name, path.stat().st_size, digest)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
