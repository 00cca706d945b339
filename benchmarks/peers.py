"""The contestants: one class each, which imports its package only when it is made.

A method returns what to time, a call without arguments that runs forward and backward and returns
the gradients; or None where the peer has no such thing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, ClassVar

import numpy as np

from benchmarks.problems import IGNORED, Floats, LinearProblem, Problem
from benchmarks.timing import Run

CHAIN_FACTOR, CHAIN_TERM = 1.0001, 0.001
OPERANDS = ("numbers", "arrays", "tensors")
MOST_SQUARED = 4000  # classes: a square matrix of so many takes 128 MB


class Peer:
    """A contestant that can do nothing yet."""

    name: ClassVar[str]
    package: ClassVar[str]

    def __init__(self, threads: int | None) -> None:
        self.threads = threads  # None: it has none of its own

    def use_threads(self, threads: int) -> None:
        """Run on so many threads from now on, where it has its own."""

    def use_kernel(self, name: str | None) -> None:
        """Compute the loss with this kernel from now on; only this project has more than one."""

    def use(self, kernel: str | None, threads: int) -> None:
        """Both."""
        self.use_kernel(kernel)
        self.use_threads(threads)

    @classmethod
    def installed(cls) -> bool:
        """Whether its package can be imported."""
        return importlib.util.find_spec(cls.package) is not None

    @property
    def version(self) -> str:
        """The version of its package."""
        return importlib.metadata.version(self.package)

    def fused(self, problem: Problem) -> Run | None:
        """Its own softmax-cross-entropy; the gradient of the logits."""
        return None

    def composite(self, problem: Problem) -> Run | None:
        """The loss from exp, sum, div and log, as the naive composite has it."""
        return None

    def chain(self, operations: int, operands: str) -> Run | None:
        """Products and sums in turn on 3 elements; `operands` are "numbers", "arrays", "tensors".

        Tensors are differentiated by as well, numbers and arrays are constants.
        """
        return None

    def record(self, operations: int) -> object | None:
        """The output of a chain with Tensors as operands, which keeps all that was recorded."""
        return None

    def linear(self, problem: LinearProblem) -> Run | None:
        """A linear layer and the loss; the gradients of x, weight and bias."""
        return None

    def by_row(
        self, logits: Floats, target: Floats, **options: Any
    ) -> tuple[Floats, Floats] | None:
        """The losses (rows,) and the gradient of their sum, in the logits' dtype.

        None where the peer has no such loss; options: `label_smoothing`.
        """
        return None


def _chain(x: Any, factor: Any, term: Any, operations: int) -> Any:
    for _ in range(operations // 2):
        x = x * factor
        x = x + term
    return x


def _chain_arrays(operands: str) -> tuple[Any, Any]:
    if operands == "numbers":
        return CHAIN_FACTOR, CHAIN_TERM
    return np.full(3, CHAIN_FACTOR), np.full(3, CHAIN_TERM)


def _composite(f: Any, x: Any, rows: Any, target: Any) -> Any:
    """The naive composite by the functions of `f`, a module whose names are NumPy's."""
    e = f.exp(x)
    log_p = f.log(e / f.sum(e, axis=-1, keepdims=True))
    return -f.sum(log_p[rows, target]) / len(rows)


class Ours(Peer):
    """This project."""

    name = "tinygrad_sm"
    package = "tinygrad_sm"

    def __init__(self, threads: int) -> None:
        self.tg = importlib.import_module("tinygrad_sm")
        pool = importlib.import_module("tinygrad_sm.engine.threads.pool")
        os.environ[pool.THREADS_VARIABLE] = str(threads)
        super().__init__(pool.default_threads())

    @property
    def version(self) -> str:
        """The installed version, or that of a checkout."""
        try:
            return super().version
        except importlib.metadata.PackageNotFoundError:
            return "from source"

    def use_threads(self, threads: int) -> None:
        """`set_threads`."""
        self.tg.set_threads(threads)

    def use_kernel(self, name: str | None) -> None:
        """`set_kernel`."""
        self.tg.set_kernel(name)

    def fused(self, problem: Problem) -> Run:
        """`cross_entropy`."""
        smoothing = problem.label_smoothing
        function = self.tg.cross_entropy
        if smoothing:
            function = partial(function, label_smoothing=smoothing)
        return self._loss(problem, function)

    def composite(self, problem: Problem) -> Run:
        """`composite_cross_entropy`."""
        return self._loss(problem, self.tg.composite_cross_entropy)

    def _leaf(self, array: Floats) -> Any:
        return self.tg.Tensor(array)

    def _loss(self, problem: Problem, function: Any) -> Run:
        logits = self._leaf(problem.logits)
        seed = np.ones(len(problem.logits), logits.dtype) if problem.reduction == "none" else None
        target, weight, reduction = problem.target, problem.weight, problem.reduction

        def run() -> object:
            logits.zero_grad()
            loss = function(logits, target, weight=weight, reduction=reduction)
            loss.backward(seed)
            return logits.grad

        return run

    def chain(self, operations: int, operands: str) -> Run:
        """Operators of `Tensor`."""
        x = self.tg.Tensor(np.ones(3))
        others = _chain_arrays(operands)
        if operands == "tensors":
            others = tuple(self.tg.Tensor(each) for each in others)
        leaves = [x, *(each for each in others if operands == "tensors")]
        seed = np.ones(3)

        def run() -> object:
            for leaf in leaves:
                leaf.zero_grad()
            _chain(x, *others, operations).backward(seed)
            return x.grad

        return run

    def record(self, operations: int) -> object:
        """Operators of `Tensor`."""
        x, factor, term = (self.tg.Tensor(a) for a in (np.ones(3), *_chain_arrays("arrays")))
        return _chain(x, factor, term, operations)

    def linear(self, problem: LinearProblem) -> Run:
        """`linear_cross_entropy`."""
        x, weight, bias = map(self._leaf, (problem.x, problem.weight, problem.bias))

        def run() -> object:
            for leaf in (x, weight, bias):
                leaf.zero_grad()
            self.tg.linear_cross_entropy(x, weight, problem.target, bias=bias).backward()
            return x.grad, weight.grad, bias.grad

        return run

    def by_row(self, logits: Floats, target: Floats, **options: Any) -> tuple[Floats, Floats]:
        """`cross_entropy`."""
        return self.form_by_row(self.tg.cross_entropy, logits, target, **options)

    def by_row_with(self, kernel: str, logits: Floats, target: Floats, **options: Any) -> Any:
        """`by_row` with one of the kernels."""
        self.use_kernel(kernel)
        try:
            return self.by_row(logits, target, **options)
        finally:
            self.use_kernel(None)

    def form_by_row(
        self, function: Any, logits: Floats, target: Floats, **options: Any
    ) -> tuple[Floats, Floats]:
        """The same of any of this project's forms of the loss."""
        a = self.tg.Tensor(logits)
        loss = function(a, target, reduction="none", **options)
        loss.backward(np.ones(len(logits), a.dtype))
        return loss.numpy(), a.grad


class Torch(Peer):
    """PyTorch's eager mode on the CPU."""

    name = "torch"
    package = "torch"

    def __init__(self, threads: int) -> None:
        self.torch = importlib.import_module("torch")
        self.use_threads(threads)
        super().__init__(self.torch.get_num_threads())

    def use_threads(self, threads: int) -> None:
        """`torch.set_num_threads`."""
        self.torch.set_num_threads(threads)

    def _leaf(self, array: Any) -> Any:
        return self.torch.tensor(array, requires_grad=True)

    def _run(self, leaves: Any, loss: Any, seed: Any = None) -> Run:
        def run() -> object:
            for leaf in leaves:
                leaf.grad = None
            loss().backward(seed)
            return [leaf.grad for leaf in leaves] if len(leaves) > 1 else leaves[0].grad

        return run

    def fused(self, problem: Problem) -> Run:
        """`torch.nn.functional.cross_entropy`."""
        function = partial(
            self.torch.nn.functional.cross_entropy,
            ignore_index=IGNORED,
            reduction=problem.reduction,
            label_smoothing=problem.label_smoothing,
        )
        x, target = self._leaf(problem.logits), self.torch.from_numpy(problem.target)
        weight = None if problem.weight is None else self.torch.from_numpy(problem.weight)
        seed = self.torch.ones(len(x), dtype=x.dtype) if problem.reduction == "none" else None
        return self._run([x], lambda: function(x, target, weight), seed)

    def composite(self, problem: Problem) -> Run | None:
        """One operator for one primitive."""
        if not problem.plain:
            return None
        x, target = self._leaf(problem.logits), self.torch.from_numpy(problem.target)[:, None]

        def loss() -> Any:
            e = x.exp()
            log_p = (e / e.sum(-1, keepdim=True)).log()
            return -log_p.gather(1, target).sum() / len(target)

        return self._run([x], loss)

    def chain(self, operations: int, operands: str) -> Run:
        """Operators of `torch.Tensor`."""
        x = self._leaf(np.ones(3))
        others = _chain_arrays(operands)
        if operands != "numbers":
            leaf = operands == "tensors"
            others = tuple(self.torch.tensor(each, requires_grad=leaf) for each in others)
        leaves = [x, *(each for each in others if operands == "tensors")]
        seed = self.torch.ones(3, dtype=x.dtype)
        run = self._run(leaves, lambda: _chain(x, *others, operations), seed)
        return run if len(leaves) == 1 else lambda: run()[0]  # type: ignore[index]

    def linear(self, problem: LinearProblem) -> Run:
        """`linear` and `cross_entropy` of torch.nn.functional."""
        functional = self.torch.nn.functional
        leaves = [self._leaf(each) for each in (problem.x, problem.weight, problem.bias)]
        target = self.torch.from_numpy(problem.target)
        return self._run(
            leaves, lambda: functional.cross_entropy(functional.linear(*leaves), target)
        )

    def by_row(self, logits: Floats, target: Floats, **options: Any) -> tuple[Floats, Floats]:
        """`torch.nn.functional.cross_entropy`."""
        x = self._leaf(logits)
        loss = self.torch.nn.functional.cross_entropy(
            x, self.torch.from_numpy(target), reduction="none", **options
        )
        loss.sum().backward()
        return loss.detach().numpy(), x.grad.numpy()


class Jax(Peer):
    """JAX, compiled; it uses as many threads as there are cores that it may run on."""

    name = "jax"
    package = "jax"

    def __init__(self, threads: int) -> None:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
        self.jax = importlib.import_module("jax")
        self.jax.config.update("jax_enable_x64", True)
        self.jnp = importlib.import_module("jax.numpy")
        cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()
        super().__init__(len(cores) or os.cpu_count() or 1)

    def _losses(self, logits: Any, target: Any) -> Any:
        log_p = self.jax.nn.log_softmax(logits)
        return -self.jnp.take_along_axis(log_p, target[:, None], axis=1)[:, 0]

    def fused(self, problem: Problem) -> Run | None:
        """`log_softmax` and a look-up under `jit`."""
        if not problem.plain:
            return None
        step = self.jax.jit(self.jax.value_and_grad(lambda a, t: self._losses(a, t).mean()))
        return self._run(step, problem)

    def composite(self, problem: Problem) -> Run | None:
        """One function for one primitive, under `jit`."""
        if not problem.plain:
            return None

        def loss(a: Any, t: Any) -> Any:
            e = self.jnp.exp(a)
            log_p = self.jnp.log(e / e.sum(axis=-1, keepdims=True))
            return -self.jnp.take_along_axis(log_p, t[:, None], axis=1).mean()

        return self._run(self.jax.jit(self.jax.value_and_grad(loss)), problem)

    def _run(self, step: Any, problem: Problem) -> Run:
        logits, target = self.jnp.asarray(problem.logits), self.jnp.asarray(problem.target)
        return lambda: self.jax.block_until_ready(step(logits, target))[1]

    def by_row(
        self, logits: Floats, target: Floats, **options: Any
    ) -> tuple[Floats, Floats] | None:
        """`log_softmax` and a look-up, differentiated by `grad`."""
        if target.ndim > 1 or options:
            return None
        a, t = self.jnp.asarray(logits), self.jnp.asarray(target)
        loss, pullback = self.jax.vjp(lambda x: self._losses(x, t), a)
        return np.asarray(loss), np.asarray(pullback(self.jnp.ones_like(loss))[0])


class Autograd(Peer):
    """HIPS autograd."""

    name = "autograd"
    package = "autograd"

    def __init__(self, threads: int) -> None:
        self.autograd = importlib.import_module("autograd")
        self.np = importlib.import_module("autograd.numpy")
        super().__init__(None)

    def composite(self, problem: Problem) -> Run | None:
        """One function of autograd.numpy for one primitive."""
        if not problem.plain:
            return None
        target, rows = problem.target, np.arange(len(problem.target))
        step = self.autograd.value_and_grad(lambda a: _composite(self.np, a, rows, target))
        return lambda: step(problem.logits)[1]

    def chain(self, operations: int, operands: str) -> Run:
        """Operators of its boxes."""
        factor, term = _chain_arrays(operands)
        x = np.ones(3)
        if operands == "tensors":
            step = self.autograd.grad(
                lambda x, f, t: self.np.sum(_chain(x, f, t, operations)), (0, 1, 2)
            )
            return lambda: step(x, factor, term)[0]
        step = self.autograd.grad(lambda x: self.np.sum(_chain(x, factor, term, operations)))
        return lambda: step(x)


class MyGrad(Peer):
    """MyGrad."""

    name = "mygrad"
    package = "mygrad"

    def __init__(self, threads: int) -> None:
        self.mg = importlib.import_module("mygrad")
        self.losses = importlib.import_module("mygrad.nnet.losses")
        super().__init__(None)

    def fused(self, problem: Problem) -> Run | None:
        """`mygrad.nnet.losses.softmax_crossentropy`."""
        if not problem.plain:
            return None
        x, function, target = (
            self._leaf(problem.logits),
            self.losses.softmax_crossentropy,
            problem.target,
        )
        return self._run(x, lambda: function(x, target))

    def composite(self, problem: Problem) -> Run | None:
        """One function of mygrad for one primitive."""
        if not problem.plain:
            return None
        x, target, rows = self._leaf(problem.logits), problem.target, np.arange(len(problem.target))
        return self._run(x, lambda: _composite(self.mg, x, rows, target))

    def _leaf(self, array: Floats) -> Any:
        return self.mg.tensor(array)

    def _run(self, x: Any, loss: Any) -> Run:
        def run() -> object:
            x.null_grad()
            loss().backward()
            return x.grad

        return run

    def chain(self, operations: int, operands: str) -> Run:
        """Operators of its Tensor."""
        x = self._leaf(np.ones(3))
        others = _chain_arrays(operands)
        if operands == "tensors":
            others = tuple(map(self._leaf, others))

        def run() -> object:
            x.null_grad()
            _chain(x, *others, operations).backward()
            return x.grad

        return run

    def record(self, operations: int) -> object:
        """Operators of its Tensor."""
        x, factor, term = map(self._leaf, (np.ones(3), *_chain_arrays("arrays")))
        return _chain(x, factor, term, operations)

    def by_row(
        self, logits: Floats, target: Floats, **options: Any
    ) -> tuple[Floats, Floats] | None:
        """`softmax_crossentropy`, a row at a time, since it knows no reduction but the mean."""
        if target.ndim > 1 or options:
            return None
        losses, gradients = [], []
        for row, right in zip(logits, target, strict=True):
            x = self._leaf(row[np.newaxis])
            loss = self.losses.softmax_crossentropy(x, right[np.newaxis])
            loss.backward()
            losses.append(loss.item())
            gradients.append(x.grad[0])
        return np.array(losses, logits.dtype), np.array(gradients, logits.dtype)


class DeZero(Peer):
    """DeZero, the engine of the book "Deep Learning from Scratch 3"."""

    name = "dezero"
    package = "dezero"

    def __init__(self, threads: int) -> None:
        with _names_that_numpy_dropped():
            self.dezero = importlib.import_module("dezero")
        self.functions = importlib.import_module("dezero.functions")
        super().__init__(None)

    def fused(self, problem: Problem) -> Run | None:
        """`dezero.functions.softmax_cross_entropy`, whose backward squares the classes."""
        if not problem.plain or problem.logits.shape[1] > MOST_SQUARED:
            return None
        function, target = self.functions.softmax_cross_entropy, problem.target
        x = self._leaf(problem.logits)
        return self._run(x, lambda: function(x, target))

    def composite(self, problem: Problem) -> Run | None:
        """One function of dezero for one primitive."""
        if not problem.plain:
            return None
        x, f = self._leaf(problem.logits), self.functions
        target, rows = problem.target, np.arange(len(problem.target))
        return self._run(x, lambda: _composite(f, x, rows, target))

    def _leaf(self, array: Floats) -> Any:
        return self.dezero.Variable(array)

    def _run(self, x: Any, loss: Any) -> Run:
        def run() -> object:
            x.cleargrad()
            loss().backward()
            return x.grad.data

        return run

    def chain(self, operations: int, operands: str) -> Run:
        """Operators of its Variable."""
        x = self.dezero.Variable(np.ones(3))
        others = _chain_arrays(operands)
        if operands == "tensors":
            others = tuple(map(self.dezero.Variable, others))

        def run() -> object:
            for each in (x, *others):
                if isinstance(each, self.dezero.Variable):
                    each.cleargrad()
            _chain(x, *others, operations).backward()
            return x.grad.data

        return run

    def record(self, operations: int) -> object:
        """Operators of its Variable."""
        x, factor, term = map(self.dezero.Variable, (np.ones(3), *_chain_arrays("arrays")))
        return _chain(x, factor, term, operations)


@contextmanager
def _names_that_numpy_dropped() -> Iterator[None]:
    """`np.int`, gone since NumPy 1.24: DeZero's latest release asks for it while it is imported."""
    vars(np)["int"] = int
    try:
        yield
    finally:
        del vars(np)["int"]


class SciPy(Peer):
    """SciPy's log_softmax, and the gradient exp(log_softmax) − y that one makes of it."""

    name = "scipy"
    package = "scipy"

    def __init__(self, threads: int) -> None:
        self.log_softmax = importlib.import_module("scipy.special").log_softmax
        super().__init__(None)

    def by_row(
        self, logits: Floats, target: Floats, **options: Any
    ) -> tuple[Floats, Floats] | None:
        """`scipy.special.log_softmax`."""
        if target.ndim > 1 or options:
            return None
        log_p = self.log_softmax(logits, axis=1)
        right = np.arange(len(logits)), target
        gradient = np.exp(log_p)
        gradient[right] -= 1
        return -log_p[right], gradient


def kernels(ours: Ours) -> tuple[tuple[str, ...], str]:
    """The kernels of this project's loss that work here, and why another one does not."""
    try:
        ours.use_kernel("compiled")
        ours.tg.warm_up()
        ours.tg.kernel()  # an error, if it could not be compiled
    except ours.tg.TinygradError as error:
        return ("numpy",), str(error)
    finally:
        ours.use_kernel(None)
    return ("numpy", "compiled"), ""


PEERS: tuple[type[Peer], ...] = (Torch, Jax, Autograd, MyGrad, DeZero, SciPy)


def wanted(names: list[str] | None = None) -> tuple[list[type[Peer]], list[str]]:
    """Every peer, or those that are named: the installed ones, and the others' names."""
    asked = [peer for peer in PEERS if names is None or peer.name in names]
    return (
        [peer for peer in asked if peer.installed()],
        [peer.name for peer in asked if not peer.installed()],
    )


def contestants(threads: int, names: list[str] | None = None) -> list[Peer]:
    """Make this project and every peer that is installed, or those of them that are named."""
    return [Ours(threads), *(peer(threads) for peer in wanted(names)[0])]
