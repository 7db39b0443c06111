"""Encrypt what is kept, per tenant: AES-256-GCM with a random key each, so that losing the key destroys the contents.

The entry's tenant, id and part are associated data, so a sealed text opens in its own place only. Keys lie apart from
the entries, one file per tenant in a folder that replicas share; backups of the store therefore never hold them, and
`shred` makes every copy of a tenant's entries unreadable wherever it is.
"""

import hashlib
import logging
import os
import secrets
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from core.errors import ConfigurationError

log = logging.getLogger(__name__)

_KEY_BYTES = 32
_NONCE_BYTES = 12


class TenantKeys:
    """One key file (mode 0600) per tenant in a folder; whoever creates one first decides for all replicas.

    Raises:
        ConfigurationError: the folder cannot be made or used.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, tuple[tuple[int, int], AESGCM]] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise PermissionError(13, "cannot be read and written")
        except OSError as problem:
            raise ConfigurationError(
                str(folder),
                "",
                f"the cache's keys cannot be kept ({problem.strerror})",
                "check the path and its rights",
            ) from problem

    def find(self, tenant: str) -> AESGCM | None:
        """Return the tenant's key, or None when there is none (any more); asks the file system every time."""
        path = self._path(tenant)
        try:
            status = path.stat()
        except FileNotFoundError:
            self._known.pop(tenant, None)
            return None
        mark = (status.st_ino, status.st_mtime_ns)
        known = self._known.get(tenant)
        if known is not None and known[0] == mark:
            return known[1]
        key = path.read_bytes()
        if len(key) != _KEY_BYTES:
            log.warning("cache key file is damaged, its tenant's entries are misses", extra={"tenant": tenant})
            return None
        cipher = AESGCM(key)
        self._known[tenant] = (mark, cipher)
        return cipher

    def find_or_make(self, tenant: str) -> AESGCM | None:
        """Return the tenant's key, making one where there is none; None when the one there is damaged."""
        if (cipher := self.find(tenant)) is None and not self._path(tenant).exists():
            self._make(tenant)
            cipher = self.find(tenant)
        return cipher

    def shred(self, tenant: str) -> bool:
        """Overwrite and remove the tenant's key; return whether there was one."""
        self._known.pop(tenant, None)
        path = self._path(tenant)
        try:
            with path.open("r+b") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            path.unlink()
        except FileNotFoundError:
            return False
        return True

    def _make(self, tenant: str) -> None:
        """Write a whole file first and link it, so that no replica reads half a key and the first one wins."""
        path = self._path(tenant)
        draft = path.with_suffix(f".{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(AESGCM.generate_key(_KEY_BYTES * 8))
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()

    def _path(self, tenant: str) -> Path:
        name = hashlib.blake2b(tenant.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self._folder / f"{name}.key"


class Sealer:
    """Seals and opens the parts of entries."""

    def __init__(self, keys: TenantKeys) -> None:
        self._keys = keys

    def seal(self, tenant: str, entry_id: str, part: str, text: bytes) -> bytes:
        """Return nonce and ciphertext.

        Raises:
            OSError: the tenant's key cannot be read or made.
        """
        cipher = self._keys.find_or_make(tenant)
        if cipher is None:
            raise OSError(f"the cache key of tenant {tenant} is damaged")
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + cipher.encrypt(nonce, text, _place(tenant, entry_id, part))

    def open(self, tenant: str, entry_id: str, part: str, sealed: bytes) -> bytes | None:
        """Return the text; None when the key is gone, is another, or anything was changed or moved."""
        cipher = self._keys.find(tenant)
        if cipher is None or len(sealed) <= _NONCE_BYTES:
            return None
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], _place(tenant, entry_id, part))
        except InvalidTag:
            return None

    def shred(self, tenant: str) -> bool:
        """Make all that was sealed for the tenant unreadable; return whether there was a key."""
        return self._keys.shred(tenant)


def _place(tenant: str, entry_id: str, part: str) -> bytes:
    return "\x1f".join((tenant, entry_id, part)).encode("utf-8", "surrogatepass")
