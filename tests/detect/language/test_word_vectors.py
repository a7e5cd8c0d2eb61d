import numpy as np
import pytest

from lit_core.errors import UserError
from lit_detect.language.inflection import analyse, bases_of, inflect
from lit_detect.language.parts_of_speech import RuleTagger, SpacyTagger, same_part
from lit_detect.language.similarity import SentenceSimilarity, WordOverlap, angular, calibrate_threshold
from lit_detect.language.word_vectors import WordVectors
from lit_detect.language.wordnet import EmbeddedSynonyms, Lexical, read_extract, read_wordnet, write_extract

WORDS = ["the", "big", "large", "small", "Paris", "huge", ".", "big", "well-known", "3rd"]


@pytest.fixture
def matrix():
    return np.random.default_rng(0).normal(size=(len(WORDS), 6)).astype(np.float32)


def save_text(path, matrix, header):
    lines = [f"{len(WORDS)} 6"] if header else []
    lines += [f"{word} {' '.join(map(repr, map(float, row)))}" for word, row in zip(WORDS, matrix, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return str(path)


def save_array(folder, matrix, parquet):
    np.save(folder / "v.npy", matrix)
    if parquet:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.table({"index": WORDS}), folder / "w.parquet")
        return str(folder / "v.npy"), str(folder / "w.parquet")
    (folder / "w.txt").write_text("\n".join(WORDS) + "\n")
    return str(folder / "v.npy"), str(folder / "w.txt")


@pytest.mark.parametrize("kind", ["glove", "word2vec", "npy", "parquet"])
def test_all_files_give_the_neighbours_of_the_full_cosine_matrix(tmp_path, matrix, kind):
    if kind in ("glove", "word2vec"):
        vectors = WordVectors(save_text(tmp_path / "v.txt", matrix, kind == "word2vec"), pool=3, min_cosine=-0.2)
    else:
        vectors = WordVectors(*save_array(tmp_path, matrix, kind == "parquet"), pool=3, min_cosine=-0.2)
    kept = [0, 1, 2, 3, 5, 8]  # the first "big", and no capitals, signs and figures
    assert vectors.words == [WORDS[i] for i in kept]
    unit = matrix[kept].astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ unit.T
    for row, word in enumerate(vectors.words):
        order = [i for i in np.argsort(-cosines[row]) if i != row][:3]
        wanted = [(vectors.words[i], cosines[row, i]) for i in order if cosines[row, i] >= -0.2]
        found = vectors.candidates(word)
        assert [other for other, _ in found] == [other for other, _ in wanted]
        np.testing.assert_allclose([c for _, c in found], [c for _, c in wanted], rtol=1e-5)
        assert vectors.cosine(word, "the") == pytest.approx(cosines[row, 0], rel=1e-4)
    assert vectors.candidates("unknown") == [] and "Paris" not in vectors and vectors.cosine("the", "no") is None
    assert vectors.thresholds == {"min_cosine": -0.2, "pool": 3}


def test_antonyms_are_no_neighbours(tmp_path, matrix):
    matrix[3] = matrix[1] + 0.01  # small beside big, as vectors that are not counter-fitted have it
    path = save_text(tmp_path / "v.txt", matrix, False)
    assert WordVectors(path).candidates("big")[0][0] == "small"
    assert "small" not in dict(WordVectors(path, antonyms=EmbeddedSynonyms()).candidates("big"))


def test_only_the_first_words_are_read(tmp_path, matrix):
    assert WordVectors(save_text(tmp_path / "v.txt", matrix, False), max_words=3).words == ["the", "big", "large"]
    assert WordVectors(*save_array(tmp_path, matrix, False), max_words=3).words == ["the", "big", "large"]


def test_wrong_files_are_one_sentence(tmp_path, matrix):
    array, words = save_array(tmp_path, matrix, False)
    with pytest.raises(UserError, match="no such file"):
        WordVectors(str(tmp_path / "none.txt"))
    with pytest.raises(UserError, match=r"a \.npy needs the file of its words"):
        WordVectors(array)
    with pytest.raises(UserError, match="min_cosine"):
        WordVectors(array, words, min_cosine=2)
    (tmp_path / "few.txt").write_text("the\n")
    with pytest.raises(UserError, match="has 1 words"):
        WordVectors(array, str(tmp_path / "few.txt")).candidates("the")
    for content in ("a 1 2\nb 1 x\n", "a 1 2\nb 1\n", "a 1 2\nb nan 1\n"):
        (tmp_path / "v.txt").write_text(content)
        with pytest.raises(UserError, match="Line 2"):
            WordVectors(str(tmp_path / "v.txt")).candidates("a")


IRREGULAR = {("v", "take"): ("took", "taken"), ("v", "stop"): ("stopped", "stopping"), ("n", "child"): ("children",)}


@pytest.mark.parametrize(
    ("base", "part", "ending", "form"),
    [
        ("house", "n", "s", "houses"),
        ("city", "n", "s", "cities"),
        ("day", "n", "s", "days"),
        ("box", "n", "s", "boxes"),
        ("child", "n", "s", None),
        ("hero", "n", "s", None),
        ("go", "v", "s", "goes"),
        ("take", "v", "ed", None),
        ("take", "v", "ing", "taking"),
        ("take", "v", "s", "takes"),
        ("stop", "v", "ed", "stopped"),
        ("stop", "v", "ing", "stopping"),
        ("lie", "v", "ing", "lying"),
        ("agree", "v", "ing", "agreeing"),
        ("carry", "v", "ed", "carried"),
        ("like", "v", "ed", "liked"),
        ("happy", "a", "er", "happier"),
        ("beautiful", "a", "er", None),
    ],
)
def test_inflection_there_and_back(base, part, ending, form):
    assert inflect(base, part, ending, IRREGULAR) == form
    if form is not None:
        assert (base, part, ending) in list(analyse(form, {(base, part)}, IRREGULAR, bases_of(IRREGULAR)))


def test_irregular_forms_count_as_regular_ones():
    assert list(analyse("took", {("take", "v")}, IRREGULAR, bases_of(IRREGULAR))) == [("take", "v", "ed")]
    assert list(analyse("children", {("child", "n")}, IRREGULAR, bases_of(IRREGULAR))) == [("child", "n", "s")]


def test_embedded_synonyms():
    found = EmbeddedSynonyms()
    assert ("rapidly", 1.0) in found.candidates("quickly")
    assert {"halted", "discontinued"} <= dict(found.candidates("stopped")).keys()
    assert "kids" in dict(found.candidates("children")) and "stated" in dict(found.candidates("said"))
    assert all(1 / 3 <= similarity <= 1 for _, similarity in found.candidates("run"))
    assert found.parts_of_speech("quickly") == {"ADV"} and "VERB" in found.parts_of_speech("walking")
    assert "slow" in found.antonyms("quick") and "slow" in found.antonyms("fast")
    assert found.candidates("xyzzy") == [] and "xyzzy" not in found and found.parts_of_speech("xyzzy") == frozenset()
    few, many = EmbeddedSynonyms(senses=1), EmbeddedSynonyms(senses=None)
    assert few.lexicon is many.lexicon  # read once
    assert len(few.candidates("run")) < len(found.candidates("run")) <= len(many.candidates("run"))
    with pytest.raises(UserError, match="senses is 0"):
        EmbeddedSynonyms(senses=0)


def test_no_synonym_is_the_word_or_its_opposite():
    found = EmbeddedSynonyms()
    words = [word for word, _ in list(found.lexicon.senses)[::7]]
    for word in words:
        others = [other for other, _ in found.candidates(word)]
        assert word not in others and len(set(others)) == len(others) and not found.antonyms(word).intersection(others)


DATA = {
    "data.adj": """  1 This is the licence
00000010 00 a 02 fast 0 quick(p) 1 001 ! 00000020 a 0101 | gloss with | in it; "a fast car"
00000020 00 a 01 slow 0 001 ! 00000010 a 0101 | gloss
00000030 00 s 02 speedy 0 New_York 0 001 & 00000010 a 0000 | gloss
""",
    "data.noun": "00000050 15 n 03 city 0 metropolis 0 Paris 0 000 | gloss\n",
    "data.verb": "00000060 30 v 02 run 0 operate 0 000 01 + 02 00 | gloss\n",
    "data.adv": "",
    "index.adj": "  1 This is the licence\nfast a 1 1 ! 1 0 00000010\nquick a 1 0 1 0 00000010\n"
    "slow a 1 1 ! 1 0 00000020\nspeedy a 1 1 & 1 0 00000030\n",
    "index.noun": "city n 1 0 1 0 00000050\nmetropolis n 1 0 1 0 00000050\nparis n 1 0 1 0 00000050\n",
    "index.verb": "run v 1 0 1 0 00000060\noperate v 1 0 1 0 00000060\n",
    "index.adv": "",
    "verb.exc": "ran run\nrunning run\n",
}


class Hand(Lexical):
    name = "Hand"
    lexicon = None

    def __init__(self, lexicon):
        super().__init__()
        self.lexicon = lexicon


def test_the_files_of_wordnet(tmp_path):
    for name, content in DATA.items():
        (tmp_path / name).write_text(content)
    files = {path.name: path for path in tmp_path.iterdir()}
    found = Hand(read_wordnet(files))
    assert found.candidates("fast") == [("quick", 1.0)]
    assert found.antonyms("fast") == {"slow"} and found.antonyms("speedy") == {"slow"}
    assert found.antonyms("quick") == frozenset(), "the opposite of fast only"
    assert found.candidates("cities") == [("metropolises", 1.0)] and found.candidates("paris") == []
    assert found.candidates("running") == [("operating", 1.0)] and found.candidates("ran") == [("operated", 1.0)]
    assert read_extract(write_extract(found.lexicon)) == found.lexicon
    with pytest.raises(UserError, match=r"no file data\.noun"):
        read_wordnet({})


# Parts of speech


def test_rules_tag_by_lists_lexicon_place_and_ending():
    sentence = "The happy children quickly walk to the old house , and 12 blorping fribbles want to book".split()
    sentence += ["frobulous", "flights", "."]
    tags = dict(zip(sentence, RuleTagger().tag([sentence])[0], strict=True))
    assert tags["The"] == "DET" and tags["children"] == "NOUN" and tags["quickly"] == "ADV" and tags["to"] == "ADP"
    assert tags["happy"] == "ADJ" and tags["12"] == "NUM" and tags["."] == "." and tags["and"] == "CONJ"
    assert tags["book"] == "VERB" and tags["frobulous"] == "ADJ" and tags["blorping"] == "VERB"
    assert RuleTagger().tag([["the", "book"]])[0][1] == "NOUN"


def test_tags_by_spacy(tmp_path):
    import spacy

    pipeline = spacy.blank("en")
    ruler = pipeline.add_pipe("attribute_ruler")
    ruler.add([[{"LOWER": "runs"}]], {"POS": "VERB"})
    ruler.add([[{"LOWER": "dog,"}]], {"POS": "NOUN"})
    pipeline.to_disk(tmp_path / "tags")
    assert SpacyTagger(str(tmp_path / "tags")).tag([["Dog,", "runs"], ["x"]]) == [["NOUN", "VERB"], ["X"]]
    spacy.blank("en").to_disk(tmp_path / "none")
    with pytest.raises(UserError, match="attribute_ruler or morphologizer"):
        SpacyTagger(str(tmp_path / "none"))


def test_nouns_and_verbs_may_stand_for_each_other():
    assert same_part("ADJ", "ADJ") and same_part("NOUN", "VERB") and not same_part("ADJ", "NOUN")


# Similarity


def test_word_overlap():
    assert WordOverlap()("a b c", ["a b c", "c b a", "a b d", "x"]).tolist() == [1, 1, pytest.approx(2 / 3), 0]


def test_sentence_similarity_is_the_angle_of_mean_vectors(tiny_bert):
    import math

    import torch
    from transformers import AutoModel, AutoTokenizer

    texts = ["the old house", "the house", "a letter of Emma to her father, and more of it"]
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()
    vectors = []
    for text in texts:
        with torch.no_grad():
            vectors.append(model(**tokenizer(text, return_tensors="pt"))[0][0].double().mean(0))
    wanted = [1 - math.acos(min(1.0, float(torch.cosine_similarity(vectors[0], v, dim=0)))) for v in vectors[1:]]
    similarity = SentenceSimilarity(tiny_bert, batch_size=2)
    for _ in range(2):  # the second time the first text's vector is remembered
        np.testing.assert_allclose(similarity(texts[0], texts[1:]), wanted, atol=1e-5)
    assert similarity(texts[0], [texts[0]])[0] == pytest.approx(1, abs=1e-3) and len(similarity("x", [])) == 0
    with pytest.raises(UserError, match="cannot be loaded"):
        SentenceSimilarity(str(tiny_bert) + "-none")("a", ["b"])


def test_the_published_threshold_is_a_cosine_of_0_955():
    import torch

    assert float(angular(torch.tensor(0.9553))) == pytest.approx(0.7, abs=1e-3)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99, 1.0])
def test_the_calibrated_threshold_is_the_largest_that_lets_the_share_pass(share):
    values = np.random.default_rng(1).normal(size=37)
    threshold = calibrate_threshold(values, share)
    assert np.mean(values >= threshold) >= share > np.mean(values > threshold)
    for wrong in (0, 1.2):
        with pytest.raises(UserError, match="share"):
            calibrate_threshold(values, wrong)


@pytest.mark.slow
def test_packaged_vectors_wordnet_and_minilm():
    from lit_detect.language.wordnet import WordNet

    wordnet = WordNet()
    assert len(wordnet.lexicon.synsets) == 117_659
    vectors = WordVectors(antonyms=wordnet)
    assert len(vectors.words) > 250_000 and vectors.nearest("computer", 3)[0][0] in ("computers", "software")
    assert "decrease" in dict(WordVectors().candidates("increase"))
    assert "decrease" not in dict(vectors.candidates("increase"))
    near, far = SentenceSimilarity()("A man eats food.", ["A man is eating a meal.", "The price of steel fell."])
    assert near > far + 0.2
