"""Join what judges a request's complexity with what is learned of that judgement, as it was left at the last stop."""

from dataclasses import dataclass
from pathlib import Path

from cache.embedder import Embedder
from cache.shadow import AnswerComparison
from gateway.learning.asking import Asking
from gateway.learning.comparing import Comparing
from gateway.learning.control_file import load_control, save_control
from gateway.learning.router_learning import Learning, exploring_secret, learning_file, load_learners
from gateway.learning.tenant_calibrations import TenantCalibrations, calibrations_file
from gateway.parts.ground import Ground
from router.complexity import PairModel
from router.control import Control


@dataclass(frozen=True, slots=True)
class Judging:
    """The classifier, and what changes its judgement: tenants' calibrations, the control of shares, what is learned."""

    classifier: PairModel
    calibrations: TenantCalibrations
    control: Control
    learning: Learning
    control_file: Path

    def save(self) -> None:
        """Write what a restart must not forget."""
        save_control(self.control_file, self.control)
        self.learning.save()


def build_judging(ground: Ground, classifier: PairModel, asking: Asking, embedder: Embedder) -> Judging:
    """Read what was kept beside the state; `asking` and `embedder` are for comparing the answers of two tiers.

    Raises:
        ConfigurationError: the file of calibrations cannot be used.
    """
    settings, clock = ground.settings, ground.clock
    control_file = settings.own("control").with_suffix(".json")
    learners = load_learners(learning_file(settings), classifier.version)
    comparing = Comparing(asking, AnswerComparison(embedder), clock, learners.spent)
    secret = exploring_secret(ground.pepper)
    return Judging(
        classifier=classifier,
        calibrations=TenantCalibrations(calibrations_file(settings), classifier.manifest),
        control=load_control(control_file, clock, settings.replicas),
        learning=Learning(learners, comparing, ground.policies, clock, secret, learning_file(settings)),
        control_file=control_file,
    )
