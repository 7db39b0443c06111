"""Correctly spelt everyday words, read from the vocabulary that comes with the encoder."""

from cache.minilm import bundled_model_dir


def bundled_words() -> frozenset[str]:
    """Return some 20,000 lower-case words; reads one file of 230 KB.

    Raises:
        FileNotFoundError: the encoder's files are not installed.
    """
    lines = (bundled_model_dir() / "vocab.txt").read_text(encoding="utf-8").splitlines()
    return frozenset(line for line in lines if line.isalpha())
