import math

import pytest
import torch
from tiny_models import HUMAN, MACHINE, overfit

from lit_core.errors import UserError
from lit_detect.detectors import DistilFAST, FASTDetector
from lit_detect.functional.graph import batch_graphs, entity_graph
from lit_detect.language.entities import extract_entities, split_sentences
from lit_detect.nn.fast import FASTNetwork
from lit_detect.nn.graph_convolution import GraphConvolution

TEXTS = [
    "Today Emma met Anna and Harriet. Then Anna left. It rained. So Emma and Harriet wept.",
    "it was late.",
    "",
    "He saw Anna. He saw Anna again. He saw Anna.",
    "one " * 100,
    "😀😀 \n\n —",
]


@pytest.fixture(scope="module", params=[FASTDetector, DistilFAST])
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=["tiny_bert", "tiny_roberta", "scratch-1x32"])
def detector(request, kind):
    model = request.param if "scratch" in request.param else request.getfixturevalue(request.param)
    return kind(model, max_tokens=48, width=16)


def by_hand(network, words, text, offsets):
    """A text alone, in float64, by loops over names, sentences and tokens."""
    linear, (first, second) = network.words[0], network.convolutions
    end = max(stop for _, stop in offsets)
    text = text[:end]

    def tokens_of(start, stop):
        return [t for t, (a, b) in enumerate(offsets) if a < b and a < stop and b > start]

    def through_words(tokens):
        return torch.relu(linear(torch.stack([words[t] for t in sorted(set(tokens))]).mean(0)))

    sentences = [(i, tokens_of(*span)) for i, span in enumerate(split_sentences(text))]
    sentences = [(i, tokens) for i, tokens in sentences if tokens]
    nodes = {}
    for mention in extract_entities(text):
        if mention.sentence in dict(sentences) and tokens_of(mention.start, mention.end):
            nodes.setdefault((mention.sentence, mention.text), []).extend(tokens_of(mention.start, mention.end))
    keys = list(nodes)
    linked = {key: {key} for key in keys}
    for i, a in enumerate(keys):
        for j, b in enumerate(keys):
            if (a[0] == b[0] and abs(i - j) == 1) or (a[0] != b[0] and a[1] == b[1]):
                linked[a].add(b)
    states = {key: through_words(tokens) for key, tokens in nodes.items()}
    for layer in (first, second):
        states = {
            key: torch.tanh(
                sum(
                    layer.linear.weight @ states[other] / math.sqrt(len(linked[key]) * len(linked[other]))
                    for other in linked[key]
                )
                + layer.linear.bias
            )
            for key in keys
        }
    vectors = [torch.stack([words[t] for t in tokens]).mean(0) for _, tokens in sentences]
    inputs = []
    for number, tokens in sentences:
        own = [states[key] for key in keys if key[0] == number]
        inputs.append(torch.stack(own).mean(0) if own else through_words(tokens))
    document = words.new_zeros(2 * linear.out_features)
    if inputs:
        out = network.lstm(torch.stack(inputs)[None])[0][0]
        pairs = [(i, i + 1) for i in range(len(out) - 1)] or [(0, 0)]
        for i, j in pairs:
            weight = (1 + vectors[i] @ vectors[j] / vectors[i].norm() / vectors[j].norm()) / 2
            document = document + weight * torch.cat((out[i], out[j])) / len(pairs)
    return network.head(torch.cat((document, words[0])) if network.document_path else document)


def test_equal_to_loops_over_one_text_at_a_time(detector):
    detector.eval()
    tokens = detector.tokenizer(TEXTS, torch.device("cpu"))
    words = detector.encoder(input_ids=tokens.ids_BT, attention_mask=tokens.mask_BT.long()).last_hidden_state
    detector.network.double()
    try:
        with torch.no_grad():
            graphs = [detector.graph(text, offsets) for text, offsets in zip(TEXTS, tokens.offsets_BT2, strict=True)]
            found = detector.network(words.double(), batch_graphs(graphs).to(words.double()))
            for row, text in enumerate(TEXTS):
                length = int(tokens.mask_BT[row].sum())
                offsets = tokens.offsets_BT2[row, :length].tolist()
                expected = by_hand(detector.network, words[row, :length].double(), text, offsets)
                torch.testing.assert_close(found[row], expected, atol=1e-6, rtol=1e-6)
    finally:
        detector.network.float()
        detector.train()


def test_the_batch_does_not_matter_and_evaluation_is_deterministic(detector):
    scores = detector.score(TEXTS)
    assert scores.shape == (len(TEXTS),) and scores.isfinite().all()
    torch.testing.assert_close(scores, torch.cat([detector.score([text]) for text in TEXTS]), atol=1e-5, rtol=0)
    assert torch.equal(scores, detector.score(TEXTS)) and detector.score([]).shape == (0,)


@pytest.mark.parametrize("texts", [TEXTS, ["it was late."], [""]])
def test_all_trained_parameters_get_a_gradient(detector, texts):
    detector(texts).square().sum().backward()
    missing = {name for name, p in detector.named_parameters() if p.requires_grad and p.grad is None}
    detector.zero_grad()
    assert not missing


def test_half_precision_scores_nearly_the_same(detector):
    with torch.autocast("cpu", torch.bfloat16):
        half = detector.score(TEXTS)
    torch.testing.assert_close(half, detector.score(TEXTS), atol=0.05, rtol=0)


def test_gradients():
    torch.manual_seed(0)
    text = "Here Anna met Bob. Then Anna left. It rained."
    offsets = torch.tensor([[0, 0], *[[i, i + 5] for i in range(0, 45, 5)]])
    graphs = batch_graphs([entity_graph(extract_entities(text), split_sentences(text), offsets)])
    network = FASTNetwork(3, 2, document_path=True).double().eval()
    words = torch.randn(1, 10, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: network(w, graphs.to(w)), (words,))


def test_graph_convolution_against_a_loop():
    torch.manual_seed(0)
    layer, states, adjacency = GraphConvolution(3, 2), torch.randn(4, 3), torch.rand(4, 4)
    expected = torch.stack(
        [
            torch.tanh(sum(adjacency[i, j] * (layer.linear.weight @ states[j]) for j in range(4)) + layer.linear.bias)
            for i in range(4)
        ]
    )
    torch.testing.assert_close(layer(states, adjacency), expected)
    padded = torch.zeros(1, 6, 6)
    padded[0, :4, :4] = adjacency
    more = torch.cat((states, torch.randn(2, 3)))[None]
    torch.testing.assert_close(layer(more, padded)[0, :4], expected)


def test_names_are_lower_case_safe_but_swapped_names_are_seen(kind):
    detector = kind("scratch-1x32", max_tokens=64, width=16)
    tokens = detector.tokenizer([TEXTS[0]], torch.device("cpu"))
    graph = detector.graph(TEXTS[0], tokens.offsets_BT2[0])
    assert graph.name_N.tolist() == [0, 1, 2, 1, 0, 2] and graph.sentence_N.tolist() == [0, 0, 0, 1, 3, 3]
    swapped = TEXTS[0].replace("Then Anna", "Then Clara")
    tokens = detector.tokenizer([swapped], torch.device("cpu"))
    assert detector.graph(swapped, tokens.offsets_BT2[0]).name_N.tolist() == [0, 1, 2, 3, 0, 2]


def test_it_learns_eight_texts(kind):
    detector = kind("scratch-1x32", max_tokens=48, width=16)
    assert overfit(detector, 40, 3e-3) == 1
    assert detector.score(MACHINE).min() > detector.score(HUMAN).max()


def test_only_fast_reads_the_document_vector():
    fast, distilled = FASTDetector("scratch-1x32", 48, 16), DistilFAST("scratch-1x32", 48, 16)
    assert (fast.network.head[1].in_features, distilled.network.head[1].in_features) == (32 + 32, 32)
    assert (fast.name, distilled.name) == ("FASTDetector[scratch-1x32]", "DistilFAST[scratch-1x32]")
    graphs = batch_graphs([fast.graph("", torch.zeros(2, 2, dtype=torch.int64))])
    words = torch.randn(1, 2, 32)
    assert fast.eval().network(words, graphs).ne(fast.network(0 * words, graphs)).any()
    assert torch.equal(distilled.eval().network(words, graphs), distilled.network(0 * words, graphs))


def test_mistakes():
    with pytest.raises(UserError, match="width is 0"):
        FASTDetector("scratch-1x32", width=0)
    with pytest.raises(UserError, match="spacy_model is no_such"):
        FASTDetector("scratch-1x32", spacy_model="no_such")
