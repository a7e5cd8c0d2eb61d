"""Human texts that are found in so many places that a language model knows them by heart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import lit_detect
from default_detector.tables import markdown

#: Beginnings of texts without copyright, and a licence, as they are usually printed.
TEXTS = {
    "MIT licence": """Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
        associated documentation files (the "Software"), to deal in the Software without restriction, including without
        limitation the rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the
        Software, and to permit persons to whom the Software is furnished to do so, subject to the following
        conditions: The above copyright notice and this permission notice shall be included in all copies or
        substantial portions of the Software.""",
    "Constitution of the United States": """We the People of the United States, in Order to form a more perfect Union,
        establish Justice, insure domestic Tranquility, provide for the common defence, promote the general Welfare,
        and secure the Blessings of Liberty to ourselves and our Posterity, do ordain and establish this Constitution
        for the United States of America. All legislative Powers herein granted shall be vested in a Congress of the
        United States, which shall consist of a Senate and House of Representatives.""",
    "Declaration of Independence": """When in the Course of human events, it becomes necessary for one people to
        dissolve the political bands which have connected them with another, and to assume among the powers of the
        earth, the separate and equal station to which the Laws of Nature and of Nature's God entitle them, a decent
        respect to the opinions of mankind requires that they should declare the causes which impel them to the
        separation. We hold these truths to be self-evident, that all men are created equal.""",
    "Genesis": """In the beginning God created the heaven and the earth. And the earth was without form, and void; and
        darkness was upon the face of the deep. And the Spirit of God moved upon the face of the waters. And God said,
        Let there be light: and there was light. And God saw the light, that it was good: and God divided the light
        from the darkness. And God called the light Day, and the darkness he called Night. And the evening and the
        morning were the first day.""",
    "Lord's Prayer": """Our Father, which art in heaven, Hallowed be thy Name. Thy Kingdom come. Thy will be done in
        earth, As it is in heaven. Give us this day our daily bread. And forgive us our trespasses, As we forgive them
        that trespass against us. And lead us not into temptation, But deliver us from evil. For thine is the kingdom,
        The power, and the glory, For ever and ever. Amen.""",
    "Gettysburg Address": """Four score and seven years ago our fathers brought forth on this continent, a new nation,
        conceived in Liberty, and dedicated to the proposition that all men are created equal. Now we are engaged in a
        great civil war, testing whether that nation, or any nation so conceived and so dedicated, can long endure. We
        are met on a great battle-field of that war. We have come to dedicate a portion of that field, as a final
        resting place for those who here gave their lives that that nation might live.""",
    "Sonnet 18": """Shall I compare thee to a summer's day? Thou art more lovely and more temperate: Rough winds do
        shake the darling buds of May, And summer's lease hath all too short a date; Sometime too hot the eye of heaven
        shines, And often is his gold complexion dimm'd; And every fair from fair sometime declines, By chance or
        nature's changing course untrimm'd; But thy eternal summer shall not fade, Nor lose possession of that fair
        thou ow'st.""",
}


def known() -> str:
    """Return what the default detector says of each text."""
    texts = [" ".join(text.split()) for text in TEXTS.values()]

    def rows() -> Iterator[Sequence[object]]:
        for name, found in zip(TEXTS, lit_detect.load("default").judge(texts), strict=True):
            assert found.p_value is not None, found.reason
            yield name, found.tokens, f"{found.score:.2f}", f"{found.p_value:.3f}", found.decision

    return markdown(["text", "tokens", "score", "p-value", "decision"], rows())
