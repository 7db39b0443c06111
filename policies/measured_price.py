"""What a hosted model's tokens cost: CPU seconds measured on its engine become exact prices, kept in a small file.

The price is marginal: what one more token makes the machine work, at the machine's hourly price,

    usd_per_m = cpu_s_per_m * hourly_usd / 3600 / cores

so an idle machine costs nothing here. Prices are rounded up to six decimal places, which is a pico-USD per token. A
file fails closed: one of another recipe, precision or weights, or whose prices do not follow from its own figures, is
refused.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Annotated, Literal

from msgspec import Meta, Struct

from core.errors import ConfigurationError
from core.money import Price
from policies.prices import MAX_USD, MEASURED, PriceEntry, exact_price
from policies.schema import convert

SECONDS_PER_HOUR = 3600
MAX_CPU_S_PER_M = 1_000_000_000
"""A thousand CPU seconds for one token; more is a slip."""
Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Unit = Literal["core", "device"]


class MeasuredFile(Struct, frozen=True, forbid_unknown_fields=True):
    """The YAML of a measurement, key by key."""

    recipe: str
    engine: str
    precision: str
    weights_digest: str
    measured_at: datetime
    hourly_usd: Decimal
    cores: Count
    concurrency: Count
    cpu_s_per_m_input: Decimal
    cpu_s_per_m_output: Decimal
    input_usd_per_m: Decimal
    output_usd_per_m: Decimal
    source: str
    unit: Unit = "core"


@dataclass(frozen=True, slots=True)
class Sample:
    """One stretch of work: the tokens that went in and came out, and the CPU seconds that they took."""

    input_tokens: int
    output_tokens: int
    cpu_s: Fraction


@dataclass(frozen=True, slots=True)
class MeasuredPrice:
    """A measurement and the price that follows from it.

    Attributes:
        recipe: the recipe's name.
        engine: the engine and its version.
        precision: of the weights.
        weights_digest: tells these weights from others.
        measured_at: aware, in UTC, whole seconds.
        hourly_usd: what the whole machine costs an hour.
        cores: of the whole machine; its devices where `unit` is `device`.
        concurrency: requests at a time during the measurement; engines batch them.
        cpu_s_per_m_input: CPU seconds for a million input tokens, three decimal places.
        cpu_s_per_m_output: the same for output tokens.
        unit: whose seconds these are; a GPU's count whole while it works on requests, whatever it does in them.
    """

    recipe: str
    engine: str
    precision: str
    weights_digest: str
    measured_at: datetime
    hourly_usd: Decimal
    cores: int
    concurrency: int
    cpu_s_per_m_input: Decimal
    cpu_s_per_m_output: Decimal
    unit: Unit = "core"

    @property
    def input_usd_per_m(self) -> Decimal:
        """Return the price of a million input tokens."""
        return usd_per_m(self.cpu_s_per_m_input, self.hourly_usd, self.cores)

    @property
    def output_usd_per_m(self) -> Decimal:
        """Return the price of a million output tokens."""
        return usd_per_m(self.cpu_s_per_m_output, self.hourly_usd, self.cores)

    @property
    def source(self) -> str:
        """Return what `Price.source` says: measured, when, and on which engine."""
        return f"{MEASURED} {_moment(self.measured_at)} on {self.engine}"

    def price(self, file: str) -> Price:
        """Count the price in integers; raises ConfigurationError when it is absurdly large."""
        entry = PriceEntry(self.input_usd_per_m, self.output_usd_per_m, source=self.source)
        return exact_price(entry, file, "")

    def figures(self) -> dict[str, str | int]:
        """Return the keys of the file in their order; amounts are decimal text."""
        return {
            "recipe": self.recipe,
            "engine": self.engine,
            "precision": self.precision,
            "weights_digest": self.weights_digest,
            "measured_at": _moment(self.measured_at),
            "hourly_usd": f"{self.hourly_usd:f}",
            "cores": self.cores,
            "concurrency": self.concurrency,
            "cpu_s_per_m_input": f"{self.cpu_s_per_m_input:f}",
            "cpu_s_per_m_output": f"{self.cpu_s_per_m_output:f}",
            "input_usd_per_m": f"{self.input_usd_per_m:f}",
            "output_usd_per_m": f"{self.output_usd_per_m:f}",
            "source": self.source,
            "unit": self.unit,
        }


def cpu_s_per_m(samples: Sequence[Sample]) -> tuple[Decimal, Decimal]:
    """Return the CPU seconds per million input and output tokens, rounded up to three decimal places.

    Least squares over the samples with neither figure below zero, solved exactly. Where the free solution has one
    negative figure, the constrained one has it at zero: token counts are not negative, so the gradient there points
    outwards.

    Raises:
        ValueError: the samples cannot tell input from output, or leave nothing for one of them, which would be a price
            of zero that nobody measured.
    """
    ii = sum(one.input_tokens**2 for one in samples)
    io = sum(one.input_tokens * one.output_tokens for one in samples)
    oo = sum(one.output_tokens**2 for one in samples)
    ic = sum((one.input_tokens * one.cpu_s for one in samples), Fraction())
    oc = sum((one.output_tokens * one.cpu_s for one in samples), Fraction())
    determinant = ii * oo - io * io
    if determinant == 0:
        raise ValueError("the workloads cannot tell input from output tokens")
    per_input = (ic * oo - oc * io) / determinant
    per_output = (oc * ii - ic * io) / determinant
    if per_input < 0:
        per_input, per_output = Fraction(), oc / oo
    elif per_output < 0:
        per_input, per_output = ic / ii, Fraction()
    for kind, cost in (("input", per_input), ("output", per_output)):
        if cost <= 0:
            raise ValueError(f"no CPU time is left for {kind} tokens")
    return _up(per_input * 10**6, 3), _up(per_output * 10**6, 3)


def usd_per_m(cpu_s: Decimal, hourly_usd: Decimal, cores: int) -> Decimal:
    """Return USD per million tokens that take `cpu_s` CPU seconds, rounded up to six decimal places."""
    return _up(Fraction(cpu_s) * Fraction(hourly_usd) / SECONDS_PER_HOUR / cores, 6)


def check_hourly_usd(hourly_usd: Decimal, file: str, key: str) -> None:
    """Raise ConfigurationError unless an hour has a price above zero, which a measured price needs."""
    if not _is_plain(hourly_usd, 9) or hourly_usd > MAX_USD:
        raise ConfigurationError(file, key, f"{hourly_usd} is not an hour's price", "write for example 0.08")


def measured_text(measured: MeasuredPrice) -> str:
    """Write the file that `parse_measured` reads."""
    lines = [f"{key}: {json.dumps(figure)}" for key, figure in measured.figures().items()]
    head = "# Written by `headgate prices measure`, not by hand: marginal cost of a token while the engine works."
    return "\n".join((head, *lines, ""))


def parse_measured(raw: object, file: str, mend: str) -> MeasuredPrice:
    """Turn what `load_yaml` returned into a measurement.

    Args:
        raw: the document.
        file: the name used in errors.
        mend: how to measure again.

    Raises:
        ConfigurationError: a key is unknown or missing, a figure is out of range, or a price does not follow from them.
    """
    written = convert(raw, MeasuredFile, file)
    check_hourly_usd(written.hourly_usd, file, "hourly_usd")
    for key in ("cpu_s_per_m_input", "cpu_s_per_m_output"):
        cpu_s: Decimal = getattr(written, key)
        if not _is_plain(cpu_s, 3) or cpu_s > MAX_CPU_S_PER_M:
            raise ConfigurationError(file, key, f"{cpu_s} is not a measured cost", mend)
    if written.measured_at.utcoffset() != timedelta(0):
        raise ConfigurationError(file, "measured_at", "the time is not in UTC", mend)
    measured = MeasuredPrice(
        recipe=written.recipe,
        engine=written.engine,
        precision=written.precision,
        weights_digest=written.weights_digest,
        measured_at=written.measured_at,
        hourly_usd=written.hourly_usd,
        cores=written.cores,
        concurrency=written.concurrency,
        cpu_s_per_m_input=written.cpu_s_per_m_input,
        cpu_s_per_m_output=written.cpu_s_per_m_output,
        unit=written.unit,
    )
    for key in ("input_usd_per_m", "output_usd_per_m", "source"):
        if getattr(written, key) != getattr(measured, key):
            raise ConfigurationError(file, key, "does not follow from the other figures", mend)
    return measured


def check_same(measured: MeasuredPrice, recipe: str, precision: str, weights_digest: str, file: str, mend: str) -> None:
    """Raise ConfigurationError unless the measurement is of this recipe, this precision and these weights."""
    wanted = {"recipe": recipe, "precision": precision, "weights_digest": weights_digest}
    for key, own in wanted.items():
        found: str = getattr(measured, key)
        if found != own:
            raise ConfigurationError(file, key, f"was measured for {found[:80]!r}, but this is {own!r}", mend)


def _is_plain(amount: Decimal, places: int) -> bool:
    """Return whether an amount is above zero with at most so many places; `1E-999999999` would take all memory."""
    exponent = amount.as_tuple().exponent
    return isinstance(exponent, int) and exponent >= -places and amount > 0


def _up(exact: Fraction, places: int) -> Decimal:
    scale: int = 10**places
    return Decimal(-(-exact.numerator * scale // exact.denominator)).scaleb(-places)


def _moment(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
