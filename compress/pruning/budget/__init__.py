"""From a budget to a student: any mix of limits, met from below within 1 %, or refused with the limit that binds."""

from compress.pruning.budget.lattice import Knob, knobs_of
from compress.pruning.budget.price import Forward, Price, price
from compress.pruning.budget.search import Planned, plan

__all__ = ["Forward", "Knob", "Planned", "Price", "knobs_of", "plan", "price"]
