from lit_detect.attacks import EntitySwap, apply_edits
from lit_detect.language.entities import extract_entities

TEXT = (
    "Emma Woodhouse lived in Highbury. Everybody in Highbury knew Emma Woodhouse and her friend Harriet. "
    "The BBC said that Harriet's letter to Knightley was lost."
)


def names(text):
    return [mention.text for mention in extract_entities(text)]


def test_repeated_names_no_longer_match_and_all_names_are_new():
    found = EntitySwap()(TEXT, 0)
    assert apply_edits(TEXT, found.edits) == found.text
    before, after = names(TEXT), [edit.after for edit in found.edits]
    assert [edit.before for edit in found.edits] == before
    assert len(set(before)) < len(before) and len(set(after)) == len(after)
    assert not set(after) & set(before)


def test_consistent_swaps_keep_who_is_mentioned_where():
    found = EntitySwap(consistent=True)(TEXT, 0)
    new = {}
    for edit in found.edits:
        assert new.setdefault(edit.before, edit.after) == edit.after
    assert len(set(new.values())) == len(new) == len(set(names(TEXT)))


def test_kinds_are_kept():
    new = {edit.before: edit.after for edit in EntitySwap(consistent=True)(TEXT, 1).edits}
    assert len(new["Emma Woodhouse"].split()) == 2
    assert new["BBC"].isupper() and len(new["BBC"]) == 3 and new["BBC"] != "BBC"
    assert " " not in new["Harriet"] and "'s letter" in EntitySwap()(TEXT, 1).text
    places = {edit.after for seed in range(5) for edit in EntitySwap()(TEXT, seed).edits if edit.before == "Highbury"}
    people = {edit.after for seed in range(5) for edit in EntitySwap()(TEXT, seed).edits if edit.before == "Harriet"}
    assert len(places) > 3 and len(people) > 3 and not places & people


def test_seeds_differ():
    assert len({EntitySwap()(TEXT, seed).text for seed in range(5)}) == 5


def test_a_share_of_the_mentions_changes():
    assert len(EntitySwap(fraction=0.5)(TEXT, 0).edits) == len(names(TEXT)) // 2
    assert EntitySwap()("nothing has a name here", 0).text == "nothing has a name here"


def test_more_names_than_the_list_has():
    text = ". ".join(f"He met Jane Fairfax{i} and Donwell{i}" for i in range(400))
    found = EntitySwap()(text, 0)
    assert apply_edits(text, found.edits) == found.text and len(found.edits) >= 800


def test_names_by_spacy(tmp_path):
    import spacy

    pipeline = spacy.blank("en")
    pipeline.add_pipe("entity_ruler").add_patterns([{"label": "PERSON", "pattern": "harriet"}])
    ruler = pipeline.get_pipe("entity_ruler")
    pipeline.rename_pipe("entity_ruler", "ner")
    assert ruler.labels == ("PERSON",)
    pipeline.to_disk(tmp_path / "pipeline")
    found = EntitySwap(spacy_model=str(tmp_path / "pipeline"))("she met harriet twice; harriet left", 0)
    assert [edit.before for edit in found.edits] == ["harriet", "harriet"]
    assert found.edits[0].after != found.edits[1].after
