"""W3C trace context: which trace a request belongs to, with span ids that are known before the spans are made.

Spans are made when the request is over, but an engine must be told the id of the span above its own when it is called.
So our ids are digests of the request's id, which is random: whoever knows the request finds its trace.
"""

import re
from dataclasses import dataclass
from hashlib import blake2b

_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z")
_SAMPLED = 1
SERVER_SPAN = 0
"""The number of the request's own span; those of attempts carry the attempt's."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """The trace of one request; ids are positive integers of 128 and 64 bits.

    Attributes:
        parent_span_id: the caller's span, None where the trace begins here.
        is_refused: the caller said that it does not sample this trace.
    """

    trace_id: int
    parent_span_id: int | None = None
    is_refused: bool = False

    def is_within(self, ratio: float) -> bool:
        """Tell whether a share `ratio` in [0, 1] of all traces has this one in it, as OpenTelemetry's samplers do."""
        return not self.is_refused and (self.trace_id & (2**64 - 1)) < round(ratio * 2**64)


def trace_context(request_id: str, traceparent: str | None) -> TraceContext:
    """Return the trace of a request: the caller's where its header is valid, else one of its own."""
    found = None if traceparent is None else _TRACEPARENT.match(traceparent.strip())
    if found is not None:
        version, trace_id, span_id, flags, further = found.groups()
        is_known = version != "ff" and not (version == "00" and further)
        if is_known and int(trace_id, 16) and int(span_id, 16):
            return TraceContext(int(trace_id, 16), int(span_id, 16), not int(flags, 16) & _SAMPLED)
    return TraceContext(_digest(request_id, b"trace", 16))


def span_id(request_id: str, n: int) -> int:
    """Return the id of a request's own span (`SERVER_SPAN`) or of its attempt `n`."""
    return _digest(request_id, b"span %d" % n, 8)


@dataclass(frozen=True, slots=True)
class Propagation:
    """What engines of ours are told of a request's trace.

    `sample_ratio` is the share of traces that they should record; None where the gateway makes no spans, so that the
    caller's own context passes as it came.
    """

    sample_ratio: float | None = None

    def traceparent(self, request_id: str, callers: str | None, n: int) -> str | None:
        """Return the header for attempt `n`, or None where there is nothing to say."""
        if self.sample_ratio is None:
            return callers
        context = trace_context(request_id, callers)
        flags = _SAMPLED if context.is_within(self.sample_ratio) else 0
        return f"00-{context.trace_id:032x}-{span_id(request_id, n):016x}-{flags:02x}"


PASS_ON = Propagation()


def _digest(request_id: str, what: bytes, size: int) -> int:
    content = request_id.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(content, digest_size=size, person=what).digest(), "big") or 1
