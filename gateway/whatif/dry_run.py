"""Decide a request as the gateway would, from configuration alone: nothing is sent, held or recorded."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

from core.chat import ChatRequest
from core.errors import HeadgateError
from core.plan import Complexity, Standing
from core.rules import AutoTarget, TenantPolicy
from gateway.learning.router_learning import learned, learning_file, load_learners
from gateway.learning.tenant_calibrations import TenantCalibrations, calibrations_file
from gateway.settings.operator import Settings, load_policy_set, load_settings
from gateway.whatif.policy_report import catalogue, tenant_in_force
from gateway.whatif.request_preview import meaning_of
from router.complexity import PairModel
from router.context import context_of
from router.decision import Decision, Inputs, decide
from router.facts import facts_of
from router.receipt import Decided, Receipt, receipt_of
from router.rules import ruled

PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Asked:
    """What to decide: whose request, with what left of the budget, when, by which program."""

    tenant: str
    request: ChatRequest
    standing: Standing
    at: datetime
    program: str


def dry_run(config: Path, asked: Asked) -> Receipt:
    """Return the receipt that the request would get with every deployment ready and no session.

    Raises:
        ConfigurationError: the configuration cannot be used, or the model's name means nothing for the tenant.
    """
    settings = load_settings(config)
    policies, registry = load_policy_set(settings), catalogue(settings)
    tenant_in_force(settings, policies, asked.tenant)
    policy, facts = meaning_of(policies, asked.tenant, asked.request), facts_of(asked.request, PATH)
    judge, router = offline_judge(settings.pair)
    judged = judge(asked.request) if isinstance(ruled(policy, facts).target, AutoTarget) else None
    if judged is not None:
        manifest = PairModel.load(settings.pair).manifest
        judged = TenantCalibrations(calibrations_file(settings), manifest).applied(asked.tenant, judged)
        judged = _learned(settings, policy.tenant_policy, asked.request, judged, router())
    inputs = Inputs(facts, policy, judged, asked.standing, registry)
    try:
        decided: Decision | HeadgateError = decide(inputs)
    except HeadgateError as refusal:
        decided = refusal
    return receipt_of(Decided(asked.request.request_id, asked.at, "", inputs, decided), router(), asked.program)


def _learned(
    settings: Settings, rules: TenantPolicy, request: ChatRequest, judged: Complexity, weights: str
) -> Complexity:
    """Return what was learned makes of the score, as a gateway started now would."""
    learners, text = load_learners(learning_file(settings), weights), request.last_user_text
    if text is None or not rules.routing.learns or rules.tenant not in learners.tenants:
        return judged
    from gateway.whatif.offline import embed_texts

    return learned(learners, rules, judged, context_of(judged.p_small_suffices, text, embed_texts([text])[0]))


def offline_judge(pair: str) -> tuple[Callable[[ChatRequest], Complexity], Callable[[], str]]:
    """Return what scores a request and what names its version; weights and encoder are loaded when first needed."""

    @cache
    def model() -> PairModel:
        from gateway.whatif.offline import encoder_fingerprint

        return PairModel.load(pair, encoder_fingerprint())

    def judge(request: ChatRequest) -> Complexity:
        from gateway.whatif.offline import embed_texts

        text = request.last_user_text
        vector = embed_texts([text])[0] if text and text.strip() else None
        return asyncio.run(model().classify(request, vector))

    return judge, lambda: model().version
