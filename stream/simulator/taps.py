"""Whether a user taps a query: how much the video is theirs, and the query fits video and user."""

from __future__ import annotations

from stream.simulator.texts.lexicon import SUBSET_WEIGHTS
from stream.simulator.texts.wording import Intent, Wording
from stream.simulator.users import Session, User

EXAMINED = (1.0, 0.8, 0.65, 0.52, 0.43, 0.36, 0.31, 0.27)
"""How likely a query at a position is looked at."""
TOP_SUBSET = max(SUBSET_WEIGHTS.values())


def examined(position: int) -> float:
    """How likely a query at this position is looked at, 0 to 1."""
    return EXAMINED[min(position, len(EXAMINED) - 1)]


def interest(session: Session, intent: Intent) -> float:
    """How much a video's thing interests the user of this session, 0 to 1."""
    index = intent.product.index
    if index == session.focus:
        return 1.0
    return 0.8 if index in session.user.tastes else 0.35


def fit(user: User, intent: Intent, wording: Wording) -> float:
    """How well a query suits the video and the user's way of putting things, 0 to 1."""
    if wording.product != intent.product.index:
        return 0.004
    traits = user.traits
    if wording.mask & ~intent.mask:
        about = 0.05
    else:
        about = 0.3 + 0.7 * SUBSET_WEIGHTS[wording.subset] / TOP_SUBSET
    style = 1.0 if wording.name == traits.name_index(intent.product) else 0.3
    if wording.phrasing != traits.phrasing:
        style *= 0.4
    own = traits.modifier_index(intent.product)
    if wording.modifier != own:
        style *= 0.4 if wording.modifier < 0 else 0.08
    return about * style


def weariness(user: User, text: str, fatigue: float) -> float:
    """What is left of a tap's likelihood where the user has passed over the query before, 0 to 1:
    `(1 - fatigue)` to the power of how often."""
    times = user.passed_over.get(text, 0) if fatigue else 0
    return (1.0 - fatigue) ** times if times else 1.0
