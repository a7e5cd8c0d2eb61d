"""How often 95 % intervals hold the truth, ours beside a percentile bootstrap, on draws from real scores.

    python benchmarks/intervals.py --draws 400 --output docs/results/intervals.md

The scores are those of a logistic regression on character 1- to 3-grams, fitted without the fold of each pair, on the
shipped pairs of human and machine text. Forty copies of them with a little noise are the population, whose AUROC and
true-positive rates are the truth; samples of n pairs are drawn from it. A shift of the machine texts' scores makes
populations of the same shape that are harder or easier, up to an AUROC near 1.
"""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from lit_core.files.paths import atomic_write
from lit_core.files.tables import markdown_table
from lit_core.statistics.interval import Interval
from lit_core.statistics.proportion import share_interval
from lit_core.statistics.roc import auroc_interval, tpr_interval
from lit_detect.formats.embedded import EmbeddedPairs
from lit_detect.functional.shape import character_scores
from lit_detect.records import HUMAN, MACHINE

#: Texts of a document, which are alike.
ALIKE = 4
SIZES, SHIFTS, SHARES, RATES = (5, 20, 100, 300), (-0.35, 0.0, 0.3), (0.02, 0.1, 0.5), (0.01, 0.05)
COPIES, NOISE, RESAMPLES, SEED = 40, 0.05, 400, 0
COLUMNS = ["of", "texts a class", "truth", *("held", "bias", "width") * 2]


def population() -> tuple[Tensor, Tensor, int]:
    """Return the scores of human texts and of their machine twins, and from how many pairs they come."""
    pairs: dict[str, dict[int, str]] = {}
    for record in EmbeddedPairs().records():
        pairs.setdefault(str(record.pair_id), {})[record.label] = record.text
    whole = {name: texts for name, texts in pairs.items() if len(texts) == 2}
    texts = [own[label] for label in (HUMAN, MACHINE) for own in whole.values()]
    labels = [label for label in (HUMAN, MACHINE) for _ in whole]
    scores = character_scores(texts, labels, [*whole] * 2, "texts").view(2, -1).repeat(1, COPIES)
    scores += NOISE * torch.randn(scores.shape, generator=torch.Generator().manual_seed(SEED), dtype=scores.dtype)
    return scores[0], scores[1], len(whole)


def auroc_of(human: Tensor, machine: Tensor) -> Tensor:
    """Return the AUROC of each row; a tie, which only a text drawn twice has, counts as lost."""
    return torch.searchsorted(human.sort().values, machine).double().mean(-1) / human.shape[-1]


def former_tpr(human: Tensor, machine: Tensor, fpr: float) -> Tensor:
    """Return the true-positive rate of each row at the threshold that floor(fpr n) of its human texts pass."""
    threshold = human.sort(descending=True).values[..., math.floor(fpr * human.shape[-1] + 1e-9), None]
    return (machine > threshold).double().mean(-1)


def bootstrapped(statistic: Callable[..., Tensor], samples: Sequence[Tensor], generator: torch.Generator) -> Interval:
    """Return a statistic of pairs with its percentile bootstrap interval over pairs."""
    n = len(samples[0])
    chosen = torch.randint(n, (RESAMPLES, n), generator=generator)
    values = statistic(*(sample[chosen] for sample in samples))
    low, high = values.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(float(statistic(*samples)), low, high, n)


def alike(share: float, n: int, generator: torch.Generator) -> Tensor:
    """Return the hits of the texts of n documents, each of which half the time repeats what its document drew."""
    drawn = torch.rand(2, n, ALIKE, generator=generator) < share
    repeats = torch.rand(n, ALIKE, generator=generator) < 0.5
    return torch.where(repeats, drawn[0, :, :1], drawn[1]).flatten().double()


def cells(truth: float, found: Sequence[Interval]) -> list[str]:
    """Return how often the truth was held, the mean error of the value, and the mean width."""
    given = [one for one in found if not one.reason]
    if not given:
        return ["too few", "", ""]
    held = sum(one.low - 1e-9 <= truth <= one.high + 1e-9 for one in given) / len(given)
    bias = sum(one.mean for one in given) / len(given) - truth
    return [f"{held:.1%}", f"{bias:+.3f}", f"{sum(one.high - one.low for one in given) / len(given):.3f}"]


def simulate(
    human: Tensor, machine: Tensor, draws: int, sizes: Sequence[int] = SIZES, shifts: Sequence[float] = SHIFTS
) -> list[list[str]]:
    """Return the rows of the table.

    Args:
        human: Scores of the human texts of the population.
        machine: Scores of their twins.
        draws: Samples per row.
        sizes: Pairs per sample.
        shifts: What is added to the scores of the machine texts.
    """
    generator, rows = torch.Generator().manual_seed(SEED), []
    for n in sizes:
        for share in SHARES:
            hits = [(torch.rand(n, generator=generator) < share).double() for _ in range(draws)]
            former = [bootstrapped(lambda x: x.mean(-1), [own], generator) for own in hits]
            ours = [share_interval(own) for own in hits]
            rows.append([f"share {share:g}", str(n), f"{share:.3f}", *cells(share, ours), *cells(share, former)])
            hits = [alike(share, n, generator) for _ in range(draws)]
            former = [bootstrapped(lambda x: x.mean(-1), [own], generator) for own in hits]
            ours = [share_interval(own, torch.arange(n).repeat_interleave(ALIKE)) for own in hits]
            name = f"share {share:g} of {ALIKE} texts a document"
            rows.append([name, str(n), f"{share:.3f}", *cells(share, ours), *cells(share, former)])
        positive, groups = torch.arange(2 * n) >= n, torch.arange(n).repeat(2)
        for shift in shifts:
            easier = machine + shift
            chosen = [torch.randint(len(human), (n,), generator=generator) for _ in range(draws)]
            truth = float(auroc_of(human, easier))
            values = [("AUROC", truth, auroc_of, partial(auroc_interval, positive=positive, groups=groups))]
            for fpr in RATES:
                truth = float((easier > human.quantile(1 - fpr)).double().mean())
                own = partial(tpr_interval, positive=positive, fpr=fpr, groups=groups)
                values.append((f"TPR at {fpr:.0%}", truth, partial(former_tpr, fpr=fpr), own))
            for name, truth, statistic, interval in values:
                ours = [interval(torch.cat((human[some], easier[some]))) for some in chosen]
                former = [bootstrapped(statistic, (human[some], easier[some]), generator) for some in chosen]
                rows.append([name, str(n), f"{truth:.3f}", *cells(truth, ours), *cells(truth, former)])
    return rows


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400, help="samples per row")
    parser.add_argument("--output", type=Path, required=True, help="the page to write")
    given = parser.parse_args()
    torch.set_num_threads(1)
    human, machine, pairs = population()
    rows = simulate(human, machine, given.draws)
    lines = [
        "# How often 95 % intervals hold the truth",
        "",
        f"Written by `{shlex.join(['python', *sys.argv])}`: {given.draws} draws per row with seed {SEED}, so that the "
        f"shares of draws are uncertain by {1.96 * math.sqrt(0.05 * 0.95 / given.draws):.1%}. The scores are those of "
        f"a logistic regression on character 1- to 3-grams for the {pairs} shipped pairs, each scored by one that was "
        f"fitted without its fold; {COPIES} copies with noise of {NOISE} (standard deviations within the classes are "
        f"{human.std():.2f} and {machine.std():.2f}) are the population, and samples are drawn from it. "
        f"Of a document with {ALIKE} texts, each text repeats what the document drew with probability 1/2; the number "
        "before it is that of documents. Scores of machine texts were shifted by "
        f"{', '.join(f'{shift:g}' for shift in SHIFTS)} for a hard, the real and an easy population.",
        "",
        "First ours, by `lit_core.statistics`; then the percentile bootstrap over pairs that `report` had before, with "
        f"{RESAMPLES} resamples, where the threshold of a true-positive rate lets floor(fpr n) human texts pass. Held "
        "is the share of draws whose interval holds the truth, bias the mean error of the value, width that of the "
        "interval.",
        "",
        *markdown_table(COLUMNS, rows),
        "",
    ]
    atomic_write(given.output, "\n".join(lines))


if __name__ == "__main__":
    main()
