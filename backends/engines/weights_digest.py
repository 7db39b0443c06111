"""Tells weights, a folder or one file, from others without reading all of them."""

from hashlib import blake2b
from pathlib import Path

from backends.engines.recipes import Recipe
from core.errors import ConfigurationError

SUFFIXES = frozenset({".bin", ".xml", ".safetensors", ".gguf"})
BLOCK_BYTES = 65_536
MAX_BLOCKS = 64


def recipe_digest(recipe: Recipe) -> str | None:
    """Return the digest of a recipe's weights, None where they are not here or the engine brings its own.

    Raises:
        ConfigurationError: they cannot be read.
    """
    if recipe.engine == "command" or not recipe.spec.model_dir.exists():
        return None
    return weights_digest(recipe.spec.model_dir, recipe.name)


def weights_digest(weights: Path, recipe: str) -> str:
    """Return a digest of the weights' names, sizes and content.

    Of a file above 4 MiB, 64 blocks are read, evenly spaced with the first and the last among them, so that a start
    with a hundred gigabytes of weights does not wait. It tells a converted or retrained model from another; it is no
    defence against somebody who builds a file to collide.

    Raises:
        ConfigurationError: the folder has no weights, or they cannot be read.
    """
    digest = blake2b(digest_size=16)
    try:
        found = [weights] if weights.is_file() else weights.iterdir()
        files = sorted(path for path in found if path.suffix in SUFFIXES and path.is_file())
        for path in files:
            digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
            _feed(digest, path)
    except OSError as problem:
        reason = problem.strerror or type(problem).__name__
        mend = "correct the path, or make it with `headgate models convert`"
        raise ConfigurationError(f"recipe {recipe}", "weights", f"cannot be read ({reason})", mend) from problem
    if not files:
        mend = "correct the path, or make it with `headgate models convert`"
        raise ConfigurationError(f"recipe {recipe}", "weights", f"{weights} has none", mend)
    return f"blake2b:{digest.hexdigest()}"


def _feed(digest: blake2b, path: Path) -> None:
    size = path.stat().st_size
    last = max(0, size - BLOCK_BYTES)
    count = min(MAX_BLOCKS, -(-size // BLOCK_BYTES))
    with path.open("rb") as file:
        for at in range(count):
            whole = size <= MAX_BLOCKS * BLOCK_BYTES
            file.seek(at * BLOCK_BYTES if whole else last * at // (count - 1))
            digest.update(file.read(BLOCK_BYTES))
