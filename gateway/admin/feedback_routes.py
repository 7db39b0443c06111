"""`/admin/feedback`: an administrator's word on any tenant's request, as the dashboard gives it."""

from litestar import Router, post
from litestar.params import JSONBody

from gateway.admin.access import OPERATOR, AdminRequest, actor_of
from gateway.changes import Changes
from gateway.learning.feedback import Feedback, FeedbackBody, FeedbackTaken


def feedback_router(feedback: Feedback, changes: Changes) -> Router:
    """Return the route; what it changes is on record."""

    @post("/", opt=OPERATOR, status_code=200, summary="Say whether an answer, or a hit of the cache, was right")
    async def take(request: AdminRequest, data: JSONBody[FeedbackBody]) -> FeedbackTaken:
        async with changes.recording(actor_of(request), f"feedback.{data.kind}", data.request_id) as change:
            taken = await feedback.take(None, data)
            change.after = {"score": taken.score}
        return taken

    return Router("/admin/feedback", route_handlers=[take], tags=["feedback"])
