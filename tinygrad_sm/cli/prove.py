"""`tinygrad-sm prove`: composite and fused have one gradient, in formulas, step by step."""

from __future__ import annotations

import click
from rich.table import Table

from tinygrad_sm.cli.printing import console, print_whole
from tinygrad_sm.study.proof import CHAPTERS, FUSED, MOST_CLASSES, Claim, Proof, prove

PROVED, NOT_PROVED = 0, 1
_SHORT = 16  # characters of a vjp that there is room for


@click.command("prove", short_help="Prove that composite − fused is 0, in formulas.")
@click.option(
    "--classes", default=3, metavar="N", help=f"How many classes, from 1 to {MOST_CLASSES}."
)
def prove_command(classes: int) -> int:
    """Prove that the composite's gradient is the fused node's, for every logit and every target.

    The engine runs on symbols a0, a1, … and y0, y1, … by the same rules that it has for numbers.
    Each rule is first held against the derivative that SymPy finds, then the loss, the gradient and
    the Hessian of all three forms against those of the fused node. Two formulas are compared as
    quotients of polynomials in lowest terms, exp(a0) being one letter.

    Needs SymPy, the extra `symbolic`.

    Exit status: 0 if it is proved, 1 if it is not, 2 on bad input.

    \b
    Examples:
      tinygrad-sm prove
      tinygrad-sm prove --classes 6
    """
    proof = prove(classes)
    _print(proof)
    return PROVED if proof.holds else NOT_PROVED


def _print(proof: Proof) -> None:
    out = console()
    for number, (chapter, title) in enumerate(CHAPTERS.items(), 1):
        claims = [claim for claim in proof.claims if claim.chapter == chapter]
        if claims:
            out.print(f"{number}  {title}", style="bold", markup=False)
            print_whole(out, _table(claims))
        if chapter == "gradient":
            first = {claim.about: claim.example for claim in claims}
            for form in ("naive", FUSED):
                out.print(f"     ∂L/∂a0, {form}: {first.get(form)}", markup=False)
        out.print()
    out.print(proof.verdict(), style="bold", markup=False)


def _table(claims: list[Claim]) -> Table:
    table = Table.grid(padding=(0, 2))
    for claim in claims:
        mark = "  ✓" if claim.holds else "  ✗"
        short = claim.chapter == "rules" and len(claim.example) <= _SHORT
        says = f"{claim.says} = {claim.example}{', …' * (claim.count > 1)}" if short else claim.says
        table.add_row(mark, claim.about, says, f"×{claim.count}")
    return table
