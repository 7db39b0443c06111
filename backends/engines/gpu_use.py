"""How busy the GPUs are and what memory is used, as `nvidia-smi` tells; nothing where there is none."""

import asyncio
import shutil
from dataclasses import dataclass

TIMEOUT_S = 3.0
LOOK_EVERY_S = 10.0
QUERY = ("--query-gpu=index,utilization.gpu,memory.used,memory.total", "--format=csv,noheader,nounits")


@dataclass(frozen=True, slots=True)
class GpuUse:
    """One GPU now; a figure that it does not tell is None."""

    device: str
    utilisation_ratio: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None


class GpuWatch:
    """Keeps the last look at all GPUs."""

    def __init__(self) -> None:
        self.last: tuple[GpuUse, ...] = ()

    async def run(self) -> None:
        """Look for ever where `nvidia-smi` is installed, else not at all."""
        program = shutil.which("nvidia-smi")
        while program is not None:
            self.last = parse_gpu_use(await _told(program))
            await asyncio.sleep(LOOK_EVERY_S)


def parse_gpu_use(text: str) -> tuple[GpuUse, ...]:
    """Read one line for each GPU: index, percent, MiB used, MiB in all; other lines are passed over."""
    found = []
    for line in text.splitlines():
        parts = [part.strip() for part in line.split(",")]
        if len(parts) == 4 and parts[0].isdigit():
            busy, used, total = (int(part) if part.isdigit() else None for part in parts[1:])
            ratio = None if busy is None else busy / 100
            found.append(GpuUse(f"cuda:{parts[0]}", ratio, _bytes(used), _bytes(total)))
    return tuple(found)


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib << 20


async def _told(program: str) -> str:
    process = await asyncio.create_subprocess_exec(
        program, *QUERY, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(TIMEOUT_S):
            out, _ = await process.communicate()
    except TimeoutError:
        out = b""
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out.decode("utf-8", "replace")
