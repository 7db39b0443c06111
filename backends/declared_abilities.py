"""What is said of a deployment's abilities, by its operator or its recipe, key by key."""

from dataclasses import replace
from typing import Annotated

import msgspec

from core.facts import Script
from core.plan import Abilities

Tokens = Annotated[int, msgspec.Meta(ge=1)]


def _says(text: str) -> msgspec.Meta:
    return msgspec.Meta(description=text)


class DeclaredAbilities(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a deployment below the dearest tier may be asked for; keys that are left out say nothing."""

    tools: Annotated[bool | None, _says("It calls tools as it should.")] = None
    json: Annotated[bool | None, _says("It keeps to JSON formats.")] = None
    media: Annotated[bool | None, _says("It takes images and audio.")] = None
    scripts: Annotated[tuple[Script, ...] | None, _says("The scripts of the languages that it was measured in.")] = None
    measured_context_tokens: Annotated[Tokens | None, _says("The longest prompt that it was measured on.")] = None

    def over(self, known: Abilities) -> Abilities:
        """Return `known` with every key that is said here in its place."""
        said = {key: value for key, value in msgspec.structs.asdict(self).items() if value is not None}
        return replace(known, **said)


UNDECLARED = DeclaredAbilities()
"""Nothing is said."""
