"""Make expected.json: what torch.nn.functional.cross_entropy says of every option.

Run it with PyTorch installed to make the file again: ``python tests/loss/make_expected.py``.
The tests read the file, so that they need no PyTorch; where it is installed they also call
`torch_result` on other inputs.
"""

import itertools
import json
from pathlib import Path

import numpy as np

EXPECTED = Path(__file__).with_name("expected.json")
SEED = 20250101

# name: the logits' shape and its class axis; PyTorch's is the second, or the only one
SHAPES = {
    "row": ((4,), 0),
    "batch": ((5, 4), 1),
    "sequence": ((2, 4, 3), 1),
    "image": ((2, 3, 2, 2), 1),
}
TARGETS = ("index", "some ignored", "distribution", "any weights")


def inputs(name, seed=SEED):
    """Logits, targets by kind, class weights and the cotangents under reduction "none"."""
    shape, axis = SHAPES[name]
    rng = np.random.default_rng([seed, len(shape)])
    n, rest = shape[axis], shape[:axis] + shape[axis + 1 :]
    index, y = rng.integers(0, n, rest), rng.random(shape)
    ignored = np.array(index)
    ignored.reshape(-1)[1::3] = -100
    return {
        "logits": rng.normal(size=shape) * 3,
        "index": index,
        "some ignored": ignored,
        "distribution": y / y.sum(axis=axis, keepdims=True),
        "any weights": y * 2,
        "weight": 0.2 + rng.random(n),
        "cotangent": rng.normal(size=rest),
    }


def cases():
    """Every combination of the options, as dictionaries."""
    grid = itertools.product(
        SHAPES,
        TARGETS,
        (False, True),
        ("mean", "sum", "none"),
        ((0.0, 1.0), (0.2, 1.0), (0.0, 2.5)),
    )
    for name, target, weighted, reduction, (label_smoothing, temperature) in grid:
        yield {
            "shape": name,
            "target": target,
            "weighted": weighted,
            "reduction": reduction,
            "label_smoothing": label_smoothing,
            "temperature": temperature,
        }


def torch_result(case, given, dtype="float64"):
    """PyTorch's loss, and its gradient of Σ cotangent·loss with respect to the logits."""
    import torch

    a = torch.tensor(given["logits"], dtype=getattr(torch, dtype), requires_grad=True)
    target = torch.tensor(given[case["target"]])
    loss = torch.nn.functional.cross_entropy(
        a / case["temperature"],
        target.to(a.dtype) if target.is_floating_point() else target,
        weight=torch.tensor(given["weight"], dtype=a.dtype) if case["weighted"] else None,
        reduction=case["reduction"],
        label_smoothing=case["label_smoothing"],
    )
    cotangent = given["cotangent"] if case["reduction"] == "none" else 1.0
    (loss * torch.tensor(cotangent, dtype=a.dtype)).sum().backward()
    return loss.detach().numpy(), a.grad.numpy()


def main():
    import torch

    made = []
    for case in cases():
        loss, grad = torch_result(case, inputs(case["shape"]))
        made.append(case | {"loss": loss.tolist(), "grad": grad.tolist()})
    given = {name: {k: v.tolist() for k, v in inputs(name).items()} for name in SHAPES}
    lines = ",\n".join(json.dumps(case, allow_nan=False) for case in made)
    head = json.dumps({"made_by": f"torch {torch.__version__}", "inputs": given}, allow_nan=False)
    text = f'{head[:-1]},\n"cases": [\n{lines}\n]}}\n'  # a line per case
    EXPECTED.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
