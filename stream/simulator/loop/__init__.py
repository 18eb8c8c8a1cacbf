"""The closed loop: simulated users before the bar of a running API, or of a policy to compare with.

What is asked is answered, shown, tapped by the hidden truth, and told back as events.
"""

from stream.simulator.loop.policies import (
    ApiPolicy,
    CascadePolicy,
    LoopError,
    OraclePolicy,
    Policy,
    open_policy,
)
from stream.simulator.loop.report import LoopReport
from stream.simulator.loop.run import LoopConfig, run_loop

__all__ = [
    "ApiPolicy",
    "CascadePolicy",
    "LoopConfig",
    "LoopError",
    "LoopReport",
    "OraclePolicy",
    "Policy",
    "open_policy",
    "run_loop",
]
