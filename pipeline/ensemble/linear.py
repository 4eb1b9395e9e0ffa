"""Fits the linear stackers: regression on the members' natural parameters, its weights tied by the task's symmetry.

A linear stacker says z_c = bias_c + sum over members m and outputs k of weights[m, k, c] * eta[m, k], and the
family's mean of z (the softmax, for classes). Its form tells which of these weights are free.
Weights that change places when the two sides of a row do are one number, so mirrored rows get mirrored answers by
construction, and the fit needs no mirrored copies of the rows. The loss is convex, so L-BFGS-B (Byrd, Lu, Nocedal and
Zhu 1995) finds its only minimum from any start; it is asked for each number in the unit in which the loss curves alike,
since a class of eight rows curves it a hundred times less than one of eight hundred.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, minimize

from pipeline.competitions.family import Categorical, Family

WIDE = 12
"""More outputs than that have a weight from each to itself alone: all pairs would be too many to learn, and slow."""

FLATTEST = 1.0e-6
"""A number that hardly curves the loss counts as if it did by this share of the one that curves it most."""


@dataclass(frozen=True)
class LinearForm:
    """The weights of a linear stacker that are free, and the bounds of the fit."""

    ties: np.ndarray
    """(free, outputs, outputs): 1 at [f, k, c] where a member's f-th free number weighs its output k in output c."""
    bias_ties: np.ndarray
    """(free, outputs): 1 at [f, c] where the f-th free bias stands in the answer c."""
    low: float = -np.inf
    high: float = np.inf
    """Bounds of every free weight."""
    largest_bias: float = 10.0
    """A class that never occurs would otherwise drive its bias to minus infinity."""


def scalar_form(family: Family, mirror: tuple[int, ...] | None, low: float = 0.0, high: float = np.inf) -> LinearForm:
    """Returns the form with one weight per member, non-negative by default, and a bias but for exchangeable outputs."""
    each = np.eye(family.outputs)
    return LinearForm(each[None], each[:0] if family.exchangeable else _orbits(each, mirror), low, high)


def full_form(family: Family, mirror: tuple[int, ...] | None) -> LinearForm:
    """Returns the form of multinomial logistic regression: a weight from every output of a member to every output.

    Many outputs have one each to themselves; exchangeable ones must share one.
    """
    outputs = family.outputs
    if family.exchangeable:
        return scalar_form(family, mirror, low=-np.inf)
    single = np.eye(outputs * outputs).reshape(-1, outputs, outputs) if outputs <= WIDE else _diagonal(outputs)
    return LinearForm(_orbits(single, mirror), _orbits(np.eye(outputs), mirror))


def _diagonal(outputs: int) -> np.ndarray:
    single = np.zeros((outputs, outputs, outputs))
    single[(np.arange(outputs),) * 3] = 1.0
    return single


def _orbits(single: np.ndarray, mirror: tuple[int, ...] | None) -> np.ndarray:
    """Returns the 0/1 masks, each joined with its mirror image; one of each pair is kept."""
    if not mirror:
        return single
    image = single
    for axis in range(1, single.ndim):
        image = np.take(image, mirror, axis=axis)
    joined = np.maximum(single, image)
    _, first = np.unique(joined.reshape(len(joined), -1), axis=0, return_index=True)
    return joined[np.sort(first)]


def fit_linear(
    eta: np.ndarray, labels: np.ndarray, family: Family, form: LinearForm, centre: np.ndarray, strength: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights (members, outputs, outputs) and bias (outputs,) with the least mean loss plus penalty.

    eta (rows, members, outputs), centre (members,). The penalty is `strength` / 2 times the squared distance of the
    weights from those of the sum of `eta` weighted by `centre`, to which the fit falls back where the rows say little;
    the bias is free of it.
    """
    rows, members, outputs = eta.shape
    table = np.ascontiguousarray(eta.reshape(rows, -1))
    truth = family.statistic(labels)
    ties = form.ties.reshape(len(form.ties), -1)
    sizes = ties.sum(axis=1)
    diagonal = (form.ties * np.eye(outputs)).any(axis=(1, 2))
    goal = np.where(diagonal, centre[:, None], 0.0)  # (members, free)
    split = goal.size

    def unfold(free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        weights = free[:split].reshape(goal.shape) @ ties
        return weights.reshape(members, outputs, outputs), free[split:] @ form.bias_ties

    def loss(free: np.ndarray) -> tuple[float, np.ndarray]:
        weights, bias = unfold(free)
        losses, slopes = family.loss_and_slope(table @ weights.reshape(-1, outputs) + bias, truth)
        away = free[:split].reshape(goal.shape) - goal
        value = losses.mean() + 0.5 * strength * (sizes * away**2).sum()
        slope = (table.T @ slopes).reshape(members, -1) @ ties.T / rows + strength * sizes * away
        return value, np.concatenate([slope.ravel(), form.bias_ties @ slopes.mean(axis=0)])

    def curvature(free: np.ndarray) -> np.ndarray:
        """The diagonal of the Hessian, with the squared slopes of the rows for their curvature, as Fisher has it."""
        weights, bias = unfold(free)
        squares = family.loss_and_slope(table @ weights.reshape(-1, outputs) + bias, truth)[1] ** 2
        each = (np.square(table).T @ squares).reshape(members, -1) @ ties.T / rows + strength * sizes
        return np.concatenate([each.ravel(), form.bias_ties @ squares.mean(axis=0)])

    start = np.concatenate([goal.ravel(), np.zeros(len(form.bias_ties))])
    found = _minimum(loss, start, curvature(start), split, form)
    weights, bias = unfold(found)
    # What is added to all logits of a softmax changes nothing.
    return weights, bias - bias.mean() if isinstance(family, Categorical) else bias


def _minimum(
    loss: Callable[[np.ndarray], tuple[float, np.ndarray]],
    start: np.ndarray,
    curvature: np.ndarray,
    split: int,
    form: LinearForm,
) -> np.ndarray:
    low = np.concatenate([np.full(split, form.low), np.full(len(start) - split, -form.largest_bias)])
    high = np.concatenate([np.full(split, form.high), np.full(len(start) - split, form.largest_bias)])
    unit = 1.0 / np.sqrt(np.maximum(curvature, FLATTEST * curvature.max()))

    def scaled(free: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = loss(free * unit)
        return value, slope * unit

    options = {"maxiter": 500, "ftol": 1.0e-12, "gtol": 1.0e-6}
    bounds = Bounds(low / unit, high / unit)
    return minimize(scaled, start / unit, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x * unit
