"""How much of a budget may be used. The standard library alone: the kernel asks before its wheels are installed."""


def margin(budget: float) -> float:
    """Returns the seconds at the end of a budget in which nothing may run any more: 5 % of it, at least three."""
    return max(3.0, 0.05 * budget)
