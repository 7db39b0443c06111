"""How long to wait before an engine is started again."""


def restart_delay_s(failures: int, base_s: float, limit_s: float) -> float:
    """Return seconds before the next start: 0 after the first failure in a row, then base x 2^n up to the limit.

    The schedule 0, 10, 20 ... 300 s is the one that GPUStack's worker uses for its model instances.
    """
    if failures <= 1:
        return 0.0
    return min(base_s * 2.0 ** min(failures - 2, 60), limit_s)
