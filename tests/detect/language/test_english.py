import pytest

from lit_core.corpora import Austen
from lit_detect.formats import EmbeddedPairs
from lit_detect.language.english import is_english, mostly_english


def test_shipped_english_is_english():
    texts = [record.text for record in EmbeddedPairs().records() if not record.label]
    texts += [document.text[:2000] for document in Austen().documents()]
    assert len(texts) > 300 and sum(map(is_english, texts)) >= 0.99 * len(texts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "123 456",
        "Der Server wird neu gestartet, und danach werden die Protokolle von der Verwaltung geprüft.",
        "Le serveur est redémarré, puis les journaux sont vérifiés par l'administrateur de la machine.",
        "El servidor se reinicia y después se revisan los registros de la máquina con cuidado.",
        "أعيد تشغيل الخادم ثم فحصت السجلات بعناية من قبل المسؤول عن النظام.",
        "<div class='row'><span id='x'>href</span><table><tr><td>cell</td></tr></table></div>",
    ],
)
def test_other_languages_and_markup_are_not(text):
    assert not is_english(text)


def test_texts_are_in_english_where_hardly_one_is_not():
    assert mostly_english([True] * 95 + [False] * 5) and not mostly_english([True] * 94 + [False] * 6)
