"""The kernel, with its speed and its digits, is the closed form Σy·p − y of `fused`."""

import numpy as np
import oracle
import pytest
from hypothesis import given
from loss_cases import cases, run

import tinygrad_sm as tg
from tinygrad_sm.loss.fused import closed_form, logits_cotangent, target_cotangent
from tinygrad_sm.loss.options import task_of


def test_the_figures_of_the_proof():
    p = np.array([0.659, 0.242, 0.099])
    assert closed_form(p, np.array([1.0, 0, 0]), 0) == pytest.approx([-0.341, 0.242, 0.099])
    assert closed_form(p, np.array([1.0, 1, 0]), 0) == pytest.approx([0.318, -0.516, 0.198])


@given(cases())
def test_the_kernel_is_the_closed_form(case):
    logits, target, options, cotangent = case
    logits = logits.astype(np.float64)
    task = task_of(tg.cross_entropy, logits.shape, logits.dtype, target, **options)
    _, gradient = run(tg.cross_entropy, logits, target, cotangent, **options)
    plain = logits_cotangent(np.asarray(cotangent), logits, task.target, task)
    *_, size = oracle.loss_and_gradient(logits, target, cotangent=cotangent, **options)
    oracle.check_gradient(gradient, plain, size)


@given(cases())
def test_the_kernels_loss_is_what_the_targets_gradient_adds_up_to(case):
    """L is linear in q: L = Σ_j q_j ∂L/∂q_j."""
    logits, target, options, _ = case
    logits = logits.astype(np.float64)
    task = task_of(tg.cross_entropy, logits.shape, logits.dtype, target, **options)
    loss = tg.cross_entropy(logits, target, **options)
    _, _, size, _ = oracle.loss_and_gradient(logits, target, **options)
    q = task.dense(logits.dtype)
    by_row = (q * target_cotangent(np.ones(np.shape(loss)), logits, q, task)).sum(axis=task.axis)
    oracle.check_loss(loss, by_row if task.reduction == "none" else by_row.sum(), size)
