"""The paths that requests travel to below a deployment's base URL; a mapped route adds its own."""

CHAT = "/chat/completions"
COMPLETIONS = "/completions"
EMBEDDINGS = "/embeddings"
KNOWN = (CHAT, COMPLETIONS, EMBEDDINGS)
CHAT_ALONE = frozenset({CHAT})
