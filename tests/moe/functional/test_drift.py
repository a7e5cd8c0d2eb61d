"""Routing drift against naive loops in Python's float64."""

import itertools
import math

import pytest
import torch

from lit_core.errors import UserError
from lit_moe.functional import drift
from lit_moe.metrics import CoactivationOverlap, ContinualRouterSaturation, ContinualVocabularySpecialization

IDS = torch.tensor(
    list(b"It is a truth universally acknowledged, that a single man in possession of a good fortune. " * 3)
)
SHAPES = [(8, 1), (4, 2), (31, 3)]


def choose(n_experts, k, seed):
    """Choices that depend on the token, as a router's do, and on chance."""
    generator = torch.Generator().manual_seed(seed)
    by_id = torch.randn(256, n_experts, generator=torch.Generator().manual_seed(0))
    scores = by_id[IDS] + 0.7 * torch.randn(len(IDS), n_experts, generator=generator)
    return scores.topk(k).indices


@pytest.fixture(params=SHAPES, ids=str)
def choices(request):
    n_experts, k = request.param
    return n_experts, k, choose(n_experts, k, 1), choose(n_experts, k, 2)


def parts(*tensors):
    """Cut into batches of uneven sizes."""
    sizes = [100, 1, len(IDS) - 101]
    return zip(*[tensor.split(sizes) for tensor in tensors], strict=True)


def test_saturation_is_the_mean_share_of_common_experts(choices):
    n_experts, k, before, after = choices
    metric = ContinualRouterSaturation(n_experts, k)
    for batch in parts(before, after):
        metric.update(*batch)
    rows = zip(before.tolist(), after.tolist(), strict=True)
    expected = math.fsum(len(set(a) & set(b)) / k for a, b in rows) / len(IDS)
    assert float(metric.compute()) == pytest.approx(expected, rel=1e-6) and 0 < expected < 1
    same = ContinualRouterSaturation(n_experts, k)
    same.update(before, before.flip(1))  # the order of preference does not count
    assert same.compute() == 1


def test_unrelated_choices_have_the_chance_levels():
    n_experts, k, tokens = 31, 3, 40_000
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.rand(tokens, n_experts, generator=generator).topk(k).indices for _ in range(2))
    ids = torch.arange(tokens) % 5
    saturation, vocabulary = ContinualRouterSaturation(31, 3), ContinualVocabularySpecialization(31, 3, 5)
    saturation.update(one, other)
    vocabulary.update(ids, one, other)
    assert float(saturation.compute()) == pytest.approx(3 / 31, abs=0.003)
    assert [float(value) for value in vocabulary.compute()] == pytest.approx([3 / 31] * 2, abs=0.008)
    overlap, chance, _ = drift.coactivation_overlap(drift.pair_counts(one, 31), drift.pair_counts(other, 31), k)
    assert float(chance) == pytest.approx(float(overlap), abs=0.03) and chance > 0.95  # both draw partners evenly


@pytest.mark.parametrize("least", [1, 10, 25])
def test_vocabulary_specialization_has_both_averages(choices, least):
    n_experts, k, before, after = choices
    metric = ContinualVocabularySpecialization(n_experts, k, 256, least)
    for batch in parts(IDS, before, after):
        metric.update(*batch)
    kept, seen = {}, {}
    for token in set(IDS.tolist()):
        rows = [t for t, other in enumerate(IDS.tolist()) if other == token]
        usual = [sum(expert in before[t].tolist() for t in rows) for expert in range(n_experts)]
        expert = usual.index(max(usual))  # the first of equals
        kept[token] = sum(expert in after[t].tolist() for t in rows)
        seen[token] = len(rows)
    often = [token for token in seen if seen[token] >= least]
    found = metric.compute()
    assert float(found.per_occurrence) == pytest.approx(sum(kept.values()) / len(IDS), rel=1e-6)
    assert float(found.per_id) == pytest.approx(math.fsum(kept[t] / seen[t] for t in often) / len(often), rel=1e-6)
    assert len(often) < len(seen) or least == 1
    assert float(found.per_id) != pytest.approx(float(found.per_occurrence))


def test_no_id_seen_often_enough_is_nan():
    metric = ContinualVocabularySpecialization(8, 1, 256, min_occurrences=1000)
    metric.update(IDS, choose(8, 1, 1), choose(8, 1, 2))
    found = metric.compute()
    assert found.per_id.isnan() and 0 < found.per_occurrence < 1


@pytest.mark.parametrize(("n_experts", "k"), [(4, 2), (31, 3)])
def test_coactivation_counts_all_pairs(n_experts, k):
    before, after = choose(n_experts, k, 1), choose(n_experts, k, 2)
    unused = (before == n_experts - 1).any(1)
    before[unused] = torch.arange(k)  # an expert that the reference never chose
    metric = CoactivationOverlap(n_experts, k)
    for batch in parts(before, after):
        metric.update(*batch)

    def conditional(rows):
        table = [[0.0] * n_experts for _ in range(n_experts)]
        for i, j in itertools.permutations(range(n_experts), 2):
            chose = [row for row in rows if i in row]
            table[i][j] = sum(j in row for row in chose) / len(chose) if chose else 0.0
        return table

    old, new = conditional(before.tolist()), conditional(after.tolist())
    assert drift.coactivation(drift.pair_counts(after, n_experts)).tolist() == [pytest.approx(row) for row in new]
    uniform = (k - 1) / (n_experts - 1)
    chosen = [i for i in range(n_experts) if i in before]
    share = {i: math.fsum(map(min, old[i], new[i])) / (k - 1) for i in chosen}
    level = {i: math.fsum(min(p, uniform) for p in old[i]) / (k - 1) for i in chosen}
    overlap, chance, by_expert = metric.compute()
    assert n_experts - 1 not in chosen and by_expert[n_experts - 1].isnan()
    assert by_expert[chosen].tolist() == pytest.approx(list(share.values()), rel=1e-6)
    assert float(overlap) == pytest.approx(math.fsum(share.values()) / len(share), rel=1e-6)
    assert float(chance) == pytest.approx(math.fsum(level.values()) / len(level), rel=1e-6)
    same = CoactivationOverlap(n_experts, k)
    same.update(before, before)
    assert float(same.compute().overlap) == pytest.approx(1)


def test_one_expert_per_token_has_no_coactivation():
    with pytest.raises(UserError, match="top_k is 1"):
        CoactivationOverlap(8, 1)


def measure(rank, tokens):
    """All values of a rank's tokens, summed over the ranks where there is a process group."""
    cut = slice(None) if tokens is None else (slice(0, tokens) if rank == 0 else slice(tokens, None))
    before, after, ids = choose(31, 3, 1)[cut], choose(31, 3, 2)[cut], IDS[cut]
    saturation, pairs = ContinualRouterSaturation(31, 3), CoactivationOverlap(31, 3)
    vocabulary = ContinualVocabularySpecialization(31, 3, 256, 4)
    saturation.update(before, after)
    pairs.update(before, after)
    vocabulary.update(ids, before, after)
    return torch.cat([saturation.compute()[None], torch.stack(vocabulary.compute()), pairs.compute().by_expert])


def run_rank(rank, folder):
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(measure(rank, 70), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_with_uneven_parts_are_one(tmp_path):
    torch.multiprocessing.start_processes(run_rank, (tmp_path,), nprocs=2, start_method="fork")
    whole = measure(0, None)
    for rank in range(2):
        assert torch.equal(torch.load(tmp_path / f"{rank}.pt", weights_only=True), whole)
