"""The tables of docs/results/default_detector.md, each from texts whose domain, family or both were left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from default_detector.evaluate import Study, called, decided
from default_detector.model import Linear, fit
from default_detector.texts import Text
from lit_core.statistics.roc import auroc_interval
from lit_detect.calibration import Calibration, Verdict
from lit_detect.functional.conformal import threshold_at_fpr
from lit_detect.functional.scores import fast_detect_gpt
from lit_detect.language.english import is_english
from lit_detect.language.repetition import repeated_share
from lit_detect.records import MACHINE

#: Lengths in words to which texts are cut.
WORDS = (50, 100, 150, 200, 300, 400)
#: Rate that is promised of whole documents, of which there are few.
_DOCUMENTS_FPR = 0.1
#: Fewest texts of a row.
_FEWEST = 15


def markdown(head: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    """Return a table in Markdown."""
    lines = [f"| {' | '.join(head)} |", f"|{'|'.join(['---'] * len(head))}|"]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def both_left_out(study: Study) -> str:
    """Return how well generators are told apart in domains, where neither was seen."""

    def rows() -> Iterator[Sequence[object]]:
        for domain, generator in sorted({(row.domain, row.generator) for row in study.rows if row.label == MACHINE}):
            own = [row for row in study.rows if (row.domain, row.generator) == (domain, generator)]
            humans = study.humans().get(domain, [])
            if not humans or own[0].is_base:
                continue
            model = study.fitted(domain, own[0].family)
            calibration = study.calibration(model, domain)
            verdicts = study.verdicts(model, calibration, own)
            ranking = study.ranking(model(study.values), domain, generator)
            single = [study.ranking(scores, domain, generator)[0].mean for scores in single_scores(study)]
            yield (
                f"{domain}, {generator}",
                *ranking,
                called(verdicts, own),
                decided(verdicts, own),
                *(f"{value:.3f}" for value in single),
            )

    head = ["domain, generator", "AUROC", "TPR at 1 %", "TPR at 5 %", "called machine", "decided"]
    return markdown([*head, "AUROC of log-likelihood", "of Fast-DetectGPT"], rows())


def encoder(study: Study, vectors: dict[str, Tensor]) -> str:
    """Return how well a frozen sentence encoder does in place of the token statistics, and beside them.

    Args:
        study: The texts.
        vectors: The encoder's vector of each text that is not of a base model.
    """
    empty = torch.zeros_like(next(iter(vectors.values())))
    encoded = torch.stack([vectors.get(row.text, empty) for row in study.rows]).double()
    kinds = {"token statistics": study.values, "encoder": encoded, "both": torch.cat((study.values, encoded), 1)}

    def rows() -> Iterator[Sequence[object]]:
        for domain, generator in sorted({(row.domain, row.generator) for row in study.rows if row.label == MACHINE}):
            own = [row for row in study.rows if (row.domain, row.generator) == (domain, generator)]
            if domain not in study.humans() or own[0].is_base:
                continue
            use = study.usable(domain, own[0].family)
            scores = (fit(values, study.rows, use)(values) for values in kinds.values())
            yield f"{domain}, {generator}", *(study.ranking(one, domain, generator)[0] for one in scores)

    return markdown(["domain, generator", *(f"AUROC of {name}" for name in kinds)], rows())


def base_models(study: Study) -> str:
    """Return how well pure samples of base models are told apart, to which nothing is fitted."""

    def rows() -> Iterator[Sequence[object]]:
        for domain, generator in sorted({(row.domain, row.generator) for row in study.rows if row.is_base}):
            model = study.fitted(domain)
            own = [row for row in study.rows if (row.domain, row.generator) == (domain, generator)]
            verdicts = study.verdicts(model, study.calibration(model, domain), own)
            scores = (model(study.values), *single_scores(study))
            ranking = [study.ranking(one, domain, generator)[0] for one in scores]
            yield (
                f"{domain}, {generator}",
                ranking[0],
                called(verdicts, own),
                *(f"{one.mean:.3f}" for one in ranking[1:]),
            )

    head = ["domain, generator", "AUROC", "called machine", "AUROC of log-likelihood", "of Fast-DetectGPT"]
    return markdown(head, rows())


def answers(study: Study) -> str:
    """Return the share of answers of instructed generators that is called machine, where neither was seen."""

    def rows() -> Iterator[Sequence[object]]:
        for generator in sorted({row.generator for row in study.rows if row.domain == "answers"}):
            own = [row for row in study.rows if row.domain == "answers" and row.generator == generator]
            model = study.fitted("answers", own[0].family)
            verdicts = study.verdicts(model, study.calibration(model), own)
            yield generator, len(own), called(verdicts, own), decided(verdicts, own)

    return markdown(["generator", "texts", "called machine", "decided"], rows())


def humans_by_length(study: Study) -> str:
    """Return the share of human texts of a domain that was left out which are called machine, by length."""

    def rows() -> Iterator[Sequence[object]]:
        for domain, texts in study.humans().items():
            model = study.fitted(domain)
            calibration = study.calibration(model, domain)
            cells: list[object] = []
            for words in WORDS:
                long = [row for row in texts if len(row.text.split()) >= words]
                if len(long) < _FEWEST:
                    cells.append("–")
                    continue
                cells.append(called([_cut(study, model, calibration, row, words) for row in long], long))
            verdicts = study.verdicts(model, calibration, texts)
            yield domain, len(texts), *cells, called(verdicts, texts), decided(verdicts, texts)

    head = ["domain", "texts", *(f"{words} words" for words in WORDS), "whole", "decided"]
    return markdown(head, rows())


def kinds(study: Study) -> str:
    """Return what of each domain's human texts is not judged for its kind: not in English, or repeating itself."""

    def rows() -> Iterator[Sequence[object]]:
        for domain, texts in study.humans().items():
            repeated = max(repeated_share(row.text) for row in texts)
            yield domain, len(texts), sum(is_english(row.text) for row in texts), f"{repeated:.2f}"

    return markdown(["domain", "texts", "taken for English", "largest share of repeated word triples"], rows())


def found_by_length(study: Study) -> str:
    """Return the share of ChatGPT's texts called machine by length, where neither domain nor family was seen."""

    def rows() -> Iterator[Sequence[object]]:
        for domain in ("essays", "writing", "xsum"):
            texts = [row for row in study.rows if row.domain == domain and row.family == "chatgpt"]
            model = study.fitted(domain, "chatgpt")
            calibration = study.calibration(model, domain)
            cells: list[object] = []
            for words in WORDS:
                long = [row for row in texts if len(row.text.split()) >= words]
                verdicts = [_cut(study, model, calibration, row, words) for row in long]
                cells.append(called(verdicts, long) if len(long) >= _FEWEST else "–")
            yield domain, len(texts), *cells

    return markdown(["domain", "texts", *(f"{words} words" for words in WORDS)], rows())


def attacks(study: Study, attacked: Sequence[Text]) -> str:
    """Return the share of attacked texts of ChatGPT called machine, where neither domain nor family was seen."""

    def rows() -> Iterator[Sequence[object]]:
        judges = {}
        for domain in sorted({row.domain for row in attacked}):
            model = study.fitted(domain, "chatgpt")
            judges[domain] = model, study.calibration(model, domain)
        clean = [row for row in attacked if row.attack == "clean"]
        humans = {domain: study.humans()[domain] for domain in judges}
        for name in ["clean", *sorted({row.attack for row in attacked} - {"clean"})]:
            own = [row for row in attacked if row.attack == name]
            verdicts = [study.verdicts(*judges[row.domain], [row])[0] for row in own]
            ranks = []
            for domain, (model, _) in judges.items():
                machine = model(torch.stack([study.of(row) for row in own if row.domain == domain]))
                human = model(torch.stack([study.of(row) for row in humans[domain]]))
                labels = torch.tensor([True] * len(machine) + [False] * len(human))
                ranks.append(f"{auroc_interval(torch.cat((machine, human)), labels).mean:.3f}")
            same = len({row.text for row in own} & {row.text for row in clean})
            yield name, len(own), same, called(verdicts, own), *ranks

    domains = sorted({row.domain for row in attacked})
    head = ["attack", "texts", "of which normalisation restores", "called machine", *(f"AUROC {d}" for d in domains)]
    return markdown(head, rows())


def touched(study: Study, checked: Sequence[tuple[Text, Text]]) -> str:
    """Return the share of human texts that are called machine before and after a spell checker."""

    def rows() -> Iterator[Sequence[object]]:
        for domain in sorted({before.domain for before, _ in checked}):
            pairs = [pair for pair in checked if pair[0].domain == domain]
            model = study.fitted(domain)
            calibration = study.calibration(model, domain)
            before, after = ([pair[which] for pair in pairs] for which in (0, 1))
            moved = model(torch.stack([study.of(row) for row in after])) - model(
                torch.stack([study.of(row) for row in before])
            )
            changed = sum(one.text != other.text for one, other in pairs)
            shares = (called(study.verdicts(model, calibration, some), some) for some in (before, after))
            yield domain, len(pairs), changed, *shares, f"{float(moved.mean()):+.3f}"

    return markdown(["domain", "texts", "changed", "called before", "called after", "mean move of the score"], rows())


def documents(study: Study, draws: int = 400) -> str:
    """Return the share of whole human documents that are called machine, by a threshold for one window and by length.

    Half of the documents, drawn again and again, set the threshold that the others meet.
    """
    whole = study.documents
    assert whole is not None

    def rows() -> Iterator[Sequence[object]]:
        model = study.fitted()
        lengths = sorted(whole.values)
        scores = torch.tensor([[float(model(own).max()) for own in whole.values[tokens]] for tokens in lengths])
        generator = torch.Generator().manual_seed(0)
        rates = torch.zeros(2, len(lengths), dtype=torch.float64)
        for _ in range(draws):
            order = torch.randperm(scores.shape[1], generator=generator)
            own, others = order[: len(order) // 2], order[len(order) // 2 :]
            thresholds = torch.tensor([threshold_at_fpr(some, _DOCUMENTS_FPR) for some in scores[:, own].double()])
            for row, limits in enumerate((thresholds[:1], thresholds)):
                rates[row] += (scores[:, others] >= limits[:, None]).double().mean(1) / draws
        for place, tokens in enumerate(lengths):
            windows = sum(map(len, whole.values[tokens])) / scores.shape[1]
            name = f"whole, up to {tokens:,} tokens" if place == len(lengths) - 1 else f"{tokens:,} tokens"
            yield name, scores.shape[1], f"{windows:.1f}", *(f"{float(rate):.3f}" for rate in rates[:, place])

    head = ["length", "documents", "windows", "any window flagged at the threshold of one", "at that of the length"]
    return markdown(head, rows())


def single_scores(study: Study) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-likelihood and Fast-DetectGPT of all texts."""
    quantities = [study.quantities[row.text] for row in study.rows]
    return (
        torch.stack([one["log_prob"].double().mean() for one in quantities]),
        torch.stack([fast_detect_gpt(one["log_prob"], one["expected"], one["variance"]) for one in quantities]),
    )


def _cut(study: Study, model: Linear, calibration: Calibration, row: Text, words: int) -> Verdict:
    share = len(" ".join(row.text.split()[:words])) / len(row.text)
    return study.verdicts(model, calibration, [row], max(1, round(share * study.tokens(row))))[0]
