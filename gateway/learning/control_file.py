"""Keep what routing control knows of each tenant's recent requests from start to start: scores and sums, no texts."""

import logging
from pathlib import Path

from core.clock import Clock
from core.errors import ConfigurationError
from gateway.files import write_whole
from router.control import Control

logger = logging.getLogger("headgate.control")


def load_control(file: Path, clock: Clock, replicas: int) -> Control:
    """Read the state; a file that cannot be used is one warning and a fresh start, which finds its floors anew."""
    control = Control(clock, replicas)
    try:
        control.restore(file.read_bytes())
    except FileNotFoundError:
        return control
    except (OSError, ValueError) as problem:
        logger.warning("routing control starts afresh", extra={"file": str(file), "problem": str(problem)})
        return Control(clock, replicas)
    return control


def save_control(file: Path, control: Control) -> None:
    """Write the state in one step; a disk that is full costs the state at the next start, and nothing now."""
    try:
        write_whole(file, control.dump().decode())
    except ConfigurationError as problem:
        logger.warning("routing control was not saved", extra={"problem": str(problem)})
