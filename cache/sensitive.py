"""Recognise texts whose answers must not be shared: bound to the moment, to the asker, or carrying a credential.

The rules look for closed-class words and sentence frames, not for subjects, and err on the side of not caching for
time and secrets. "Why does my dog bark?" says "my" without being about a record that only the asker has.
"""

import re

from cache.glance import as_words, ascii_digits, fold, glance, has_any
from cache.words import TIME_WORDS

LONG_CHARS = 2_000
"""Beyond this length the sentence rules give way to coarser ones that err on the side of not sharing."""


def _any_of(*alternatives: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{one})" for one in alternatives), re.IGNORECASE)


_DAY_NAMES = r"(?:mon|tues|wednes|thurs|fri|satur|sun)day"
_FAST = (
    r"(?:time|date|day|hour|price|value|rate|quote|score|standing|weather|temperature|forecast|traffic|news|headline|status"
    r"|balance|stock|version|release|result|odd|event|queue|population|holder|champion|leader|ranking|situation)s?"
)
_TIME = _any_of(
    r"\b(?:today|tonight|yesterday|tomorrow|overnight|right now|just now|as of now|nowadays)\b",
    r"\bat (?:the|this) (?:moment|time|hour|minute)\b",
    r"\b(?:this|last|next|past|coming) (?:morning|afternoon|evening|night|hour|minute|week|weekend|month)\b",
    rf"\b(?:this|last|next) {_DAY_NAMES}\b",
    rf"\b(?:current|currently|latest|newest|live|real-?time|up-to-date|most recent)\b(?: [\w'-]+){{0,2}} {_FAST}\b",
    rf"\b{_FAST} (?:currently|now)\b",
    r"\bweather\b(?! balloon| vane|ing)|\b(?:the|latest|top|today'?s) (?:headlines?|forecast)\b|\bbreaking news\b",
    r"\b(?:any|latest|recent|top|some|the|what(?: i|')?s the) news(?: (?:about|on|from|in)\b|\W*$)",
    r"\bwhat(?:'s| is) (?:new|going on|happening)(?: (?:in the world|around|now|with)\b|\W*$)",
    r"\b(?:what|which)(?:'s| is)? (?:time|date|day|month|year) (?:is it|it is)\b",
    r"\b(?:what is|what's|whats|tell me|give me|know|show me|need|say) the (?:\w+ )?(?:time|date)"
    r"(?: (?:in|at) [\w ]+| please| now)?\W*$",
    r"\bdo you have the time\b|\btime is it\b",
    r"\b(?:stock|share|gold|oil|gas|silver|fuel|bitcoin|crypto\w*) prices?\b|\bexchange rates?\b",
    r"\bprices? of (?:bitcoin|ethereum|gold|silver|oil|gas|petrol|a barrel|\w+ (?:stock|shares?))\b",
    r"\b(?:bitcoin|btc|ethereum|stocks?|shares?|dollar|euro|pound|yen) (?:trading|worth|at)\b",
    r"\bhow (?:many|much|long)(?: more)? ?(?:\w+ )?(?:until|till|is left|are left|remain\w*)\b",
    r"\bhow (?:is|was|bad is) the traffic\b|\btraffic (?:on|right|jam on)\b",
    r"\b(?:is it|will it|is it going to) (?:rain|snow|freez|sunny|storm)\w*\b|\bhow (?:hot|cold|warm) is it\b",
    r"\b(?:days?|hours?|minutes?) ago\b",
    r"\b(?:who|what team|which team)(?:'s| is| are| has| have)? (?:winning|leading|playing|ahead|in the lead)\b",
    r"\bwhat(?:'s| is| was) the (?:final )?score\b|\bis [\w' ]+ (?:open|closed|down|up|live|online) now\b",
    r"(?<!until )(?<!till )(?<!by )\bnow\W*$",
)
_TIME_SIGNS = as_words(*TIME_WORDS, "monday tuesday wednesday thursday friday saturday sunday")
_WEATHER = ("rain", "snow", "freez", "sunny", "storm")
_LEFT = ("until", "till", "remain")
_RECORD = (
    r"(?:accounts?|orders?|invoices?|bills?|balance|subscriptions?|tickets?|bookings?|reservations?|appointments?"
    r"|deliver(?:y|ies)|packages?|parcels?|shipments?|payments?|refunds?|transactions?|statements?|contracts?|plan"
    r"|memberships?|points|rewards?|vouchers?|e-?mails?|inbox|messages?|files?|documents?|calendar|meetings?|schedule"
    r"|tasks?|address(?:es)?|passwords?|passcode|pin|user ?names?|logins?|profile|names?|birthday|age|phone"
    r"|(?:phone )?numbers?|salary|pays?lips?|wages|insurance|policy|claims?|cart|basket|wish ?list|purchases?|settings"
    r"|usage|quota|limits?|grades?|transcript|prescriptions?|diagnosis|results?|location|status|vacation days)"
)
_DONE = r"(?:order|buy|bought|pay|paid|book|subscribe|receive|say|said|ask|tell|told|spend|spent|upload|save)(?:d|ed)?"
_PERSONAL = _any_of(
    r"^(?:what|where|when|which|who|whose)(?:'s| is| are| was| were)?(?: [\w-]+){0,2}"
    rf" my (?:[\w-]+ ){{0,2}}?{_RECORD}\b",
    rf"^(?:is|are|was|were|did|has|have) my (?:[\w-]+ ){{0,2}}?{_RECORD}\b",
    r"^(?:show|list|find|check|track|cancel|change|update|delete|open|send|tell|give|get|read|summari[sz]e)\b"
    rf"[^.?!:]{{0,30}} my (?:[\w-]+ ){{0,2}}?{_RECORD}\b",
    rf"^how (?:many|much) (?:[\w-]+ )?(?:is|are|does|do|of)? ?my (?:[\w-]+ ){{0,2}}?{_RECORD}\b",
    r"^(?:who|where) am i\b|^what(?:'s| is) my\b|^when (?:is|are|was|does|do|did|will) my\b",
    r"\bremember (?:me|my|what i)\b",
    r"^how (?:many|much) (?:[\w-]+ ){0,3}(?:do i (?:still )?(?:owe|have left)|have i (?:got|used|left|spent|earned))\b",
    rf"^(?:what|when|where|how much|which \w+) (?:did|have) i (?:last |already |just )?{_DONE}\b",
    r"^(?:do|have) i (?:still )?(?:owe|have|got) any\b",
)
_GENERIC = re.compile(r"^(?:how (?:do|does|can|could|should|would|to|might)|why|should|could|can)\b", re.I)
_FIRST_PERSON = re.compile(r"\b(?:my|mine|me|i)\b", re.I)
_ASKER = as_words("my mine me i")
_SECRET = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\b[spr]k[-_](?:live|test|proj|ant)?[-_]?[A-Za-z0-9_-]{20,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{30,}|\bgithub_pat_\w{30,}|\bxox[abprs]-[A-Za-z0-9-]{10,}"
    r"|\bAIza[\w-]{30,}|\beyJ[\w-]{10,600}\.eyJ[\w-]{10,600}\.[\w-]{10}|\bglpat-[\w-]{20,}"
    r"|\b(?i:password|passwd|secret|api[ _-]?key|access[ _-]?token)\b\s*(?i:is|=|:)\s*(?=\S{0,200}\d)\S{8}"
    r"|(?<![\d.,-])(?:\d{4}[ -]){3}\d{1,4}(?![\d.,-])|(?<![\d.,-])\d{15,16}(?![\d.,-])"
)

_SECRET_WORDS = ("passw", "secret", "key", "token")
_LEAST_CARD_DIGITS = 13
_LONG_NUMBER = re.compile(r"\d[\d -]{14}")
_WHOLE_SECRET = re.compile(rf"(?:{_SECRET.pattern})[^\s\"',;]*")
_KEY_BLOCK = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL)


def is_time_dependent(text: str) -> bool:
    """Whether the answer changes with the moment of asking, within hours or days."""
    if not _may_be_about_time(text):
        return False
    if len(text) > LONG_CHARS:
        return True  # the rules' cost grows faster than the text; refusing is the safe side
    return _TIME.search(text.strip()) is not None


def is_personal(text: str) -> bool:
    """Whether the question is about the asker's own records; general how-to questions that say "my" are not."""
    if glance(text).words.isdisjoint(_ASKER):
        return False
    if len(text) > LONG_CHARS:
        return _FIRST_PERSON.search(text) is not None
    stripped = text.strip()
    return _PERSONAL.search(stripped) is not None and _GENERIC.match(stripped) is None


def has_secret(text: str) -> bool:
    """Whether the text shows a credential or a payment card number."""
    return _may_have_secret(text) and _SECRET.search(text) is not None


def _may_be_about_time(text: str) -> bool:
    """Whether a text holds what the rules of time cannot do without; the rules cost ten times as much."""
    seen = glance(text)
    words = seen.words
    return (
        not words.isdisjoint(_TIME_SIGNS)
        or (b"it" in words and has_any(_WEATHER, seen.folded))
        or (b"how" in words and has_any(_LEFT, seen.folded))
    )


def _may_have_secret(text: str) -> bool:
    """Whether a text holds what the rules of secrets cannot do without; the rules cost forty times as much.

    Single characters, of which most texts lack some, are looked for first: they are found five times as fast.
    """
    return (
        ("-" in text and has_any(("k-", "-----BEGIN", "xox", "glpat-"), text))
        or ("_" in text and has_any(("k_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), text))
        or ("A" in text and has_any(("AKIA", "ASIA", "AIza"), text))
        or ("J" in text and "eyJ" in text)
        or _may_have_digits_of_secret(text)
    )


def _may_have_digits_of_secret(text: str) -> bool:
    """Whether a text holds the digits of a payment card, or any beside a word for a credential."""
    digits = ascii_digits(text) if text.isascii() else _LEAST_CARD_DIGITS
    if digits and has_any(_SECRET_WORDS, fold(text)):
        return True
    return digits >= _LEAST_CARD_DIGITS and _LONG_NUMBER.search(text) is not None


def redacted(text: str) -> str:
    """Return the text with what `has_secret` looks for taken out; the rest of a private key's block goes with it."""
    return _WHOLE_SECRET.sub("[redacted]", _KEY_BLOCK.sub("[redacted]", text))
