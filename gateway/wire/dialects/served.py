"""Every wire of the public listener, and the routes that an operator maps."""

from core.chat import Demands, parse_chat_request
from core.passed_requests import parse_embedding_request, routed_request
from gateway.wire.dialects.completions import COMPLETIONS_DIALECT
from gateway.wire.dialects.dialect import Dialect, Spoken
from gateway.wire.dialects.messages import MESSAGES_DIALECT
from gateway.wire.dialects.responses import RESPONSES_DIALECT


def _chat(body: bytes, request_id: str, demands: Demands) -> Spoken:
    return Spoken(parse_chat_request(body, request_id, demands))


def _embeddings(body: bytes, request_id: str, demands: Demands) -> Spoken:
    return Spoken(parse_embedding_request(body, request_id, demands))


CHAT_DIALECT = Dialect("/v1/chat/completions", _chat)
EMBEDDINGS_DIALECT = Dialect("/v1/embeddings", _embeddings)
DIALECTS = (CHAT_DIALECT, COMPLETIONS_DIALECT, EMBEDDINGS_DIALECT, RESPONSES_DIALECT, MESSAGES_DIALECT)


def mapped_route(path: str, deployment: str) -> Dialect:
    """Return the wire of a mapped path: bodies and answers pass as they are."""

    def read(body: bytes, request_id: str, demands: Demands) -> Spoken:
        content_type = demands.content_type
        return Spoken(routed_request(body, content_type, path.removeprefix("/v1"), deployment, request_id, demands))

    return Dialect(path, read)
