"""Counts the steps that a backtracking engine takes for a regular expression, so that growth needs no clock."""

import re
import sys
from itertools import product

if sys.version_info >= (3, 11):
    from re import _constants as c
    from re import _parser as parser
else:
    import sre_constants as c
    import sre_parse as parser

_CATEGORIES = {"DIGIT": str.isdigit, "SPACE": str.isspace, "WORD": lambda one: one == "_" or one.isalnum()}
_SAMPLES = "aZé1. \n-_[(]):/'\"=~x!"
_OWN = (c.LITERAL, c.RANGE)
_UNBOUNDED = 100  # a repeat of so many characters or more
_ONE = {c.LITERAL, c.NOT_LITERAL, c.ANY, c.IN}  # nodes that take one character
LIMIT = 300_000  # of steps


class Steps:
    """A pattern, and the steps of its last search.

    Args:
        pattern: The compiled pattern.
    """

    def __init__(self, pattern):
        self.tree = parser.parse(pattern.pattern, pattern.flags)
        self.fold, self.multiline, self.dotall = (pattern.flags & flag for flag in (re.I, re.M, re.S))
        self.count, self.text, self._known = 0, "", {}

    def search(self, text, anchored=False):
        """Return the number of steps for all matches of a text, or for one match from its beginning to its end.

        Raises:
            OverflowError: If they are more than `LIMIT`.
        """
        self.count, self.text, at = 0, text, 0
        if anchored:
            next((end for end in self._sequence(self.tree, 0, 0) if end == len(text)), None)
            return self.count
        while at <= len(text):
            end = next(self._sequence(self.tree, 0, at), None)
            self.count += 1
            at = at + 1 if end is None else max(end, at + 1)
        return self.count

    def _sequence(self, nodes, index, at):
        while index < len(nodes):
            op, value = nodes[index]
            self.count += 1
            if self.count > LIMIT:
                raise OverflowError
            if op not in _ONE:
                for end in self._node(op, value, at):
                    yield from self._sequence(nodes, index + 1, end)
                return
            if at == len(self.text) or not self.takes(op, value, self.text[at]):
                return
            index, at = index + 1, at + 1
        yield at

    def _node(self, op, value, at):
        if op is c.SUBPATTERN:
            yield from self._sequence(value[3], 0, at)
        elif op is c.BRANCH:
            for branch in value[1]:
                yield from self._sequence(branch, 0, at)
        elif op in (c.MAX_REPEAT, c.MIN_REPEAT):
            yield from self._repeat(*value, at, 0, op is c.MAX_REPEAT)
        elif op in (c.ASSERT, c.ASSERT_NOT):
            start = at if value[0] == 1 else at - value[1].getwidth()[0]
            found = start >= 0 and next(self._sequence(value[1], 0, start), None) is not None
            if found is (op is c.ASSERT):
                yield at
        elif op is c.AT:
            if self._is_at(value, at):
                yield at
        else:
            raise NotImplementedError(op)

    def _repeat(self, low, high, body, at, done, greedy):
        if len(body) == 1 and body[0][0] in _ONE:
            longest = 0
            while longest < high and at + longest < len(self.text) and self.takes(*body[0], self.text[at + longest]):
                longest += 1
                self.count += 1
            ends = range(at + low, at + longest + 1)
            yield from reversed(ends) if greedy else ends
            return
        if not greedy and done >= low:
            yield at
        if done < high:
            for end in self._sequence(body, 0, at):
                if end > at or done < low:
                    yield from self._repeat(low, high, body, end, done + 1, greedy)
        if greedy and done >= low:
            yield at

    def _is_at(self, where, at):
        text = self.text
        if where in (c.AT_BEGINNING, c.AT_BEGINNING_STRING):
            return at == 0 or bool(self.multiline and where is c.AT_BEGINNING and text[at - 1] == "\n")
        if where is c.AT_END:
            return at == len(text) or text[at:] == "\n" or bool(self.multiline and text[at] == "\n")
        if where is c.AT_END_STRING:
            return at == len(text)
        word = _CATEGORIES["WORD"]
        change = (at > 0 and word(text[at - 1])) != (at < len(text) and word(text[at]))
        return change is (where is c.AT_BOUNDARY)

    def takes(self, op, value, character):
        """Return whether a node of one character takes a character."""
        key = op, id(value) if op is c.IN else value, character
        if key not in self._known:
            both = {character.lower(), character.upper(), character} if self.fold else {character}
            self._known[key] = any(self._takes(op, value, one) for one in both)
        return self._known[key]

    def _takes(self, op, value, character):
        if op is c.ANY:
            return bool(self.dotall) or character != "\n"
        if op is c.LITERAL:
            return ord(character) == value
        if op is c.NOT_LITERAL:
            return ord(character) != value
        negated = value[0][0] is c.NEGATE
        return negated is not any(self._in(*item, character) for item in value[negated:])

    def _in(self, op, value, character):
        if op is c.RANGE:
            return value[0] <= ord(character) <= value[1]
        if op is c.CATEGORY:
            name = value.name.removeprefix("CATEGORY_")
            return _CATEGORIES[name.removeprefix("NOT_")](character) is not name.startswith("NOT_")
        return ord(character) == value

    # Texts that could take long

    def attacks(self, length):
        """Yield texts that repeat, a number of times, what unbounded repeats take and what precedes them."""
        repeats = list(self._repeats(self.tree, [""]))
        pumps = {pump for before, body in repeats for pump in (*body, *before, *(before[0] + one for one in body[:2]))}
        starts = {"", *(before[0] for before, _ in repeats)}
        for pump, start, end in product(sorted(pumps - {""}), sorted(starts), ("", "\x01", "a")):
            yield start + pump * length + end

    def _repeats(self, nodes, before):
        """Yield, for each unbounded repeat, texts that precede it in a match and texts that its body takes."""
        for op, value in nodes:
            if op in (c.MAX_REPEAT, c.MIN_REPEAT) and value[1] >= _UNBOUNDED:
                yield before, self.samples(value[2])
            for part in _inside(op, value):
                yield from self._repeats(part, before)
            before = [text + more for text, more in product(before, self.samples([(op, value)])[:2])][:4]

    def samples(self, nodes):
        """Return some texts that a sequence of nodes matches, regardless of what stands around them."""
        texts = [""]
        for op, value in nodes:
            if op in _ONE:
                items = [(op, value)] if op is c.LITERAL else value if op is c.IN else []
                own = "".join(chr(one if kind is c.LITERAL else one[0]) for kind, one in items if kind in _OWN)
                parts = [one for one in dict.fromkeys(own[:4] + _SAMPLES) if self.takes(op, value, one)]
            elif op in (c.MAX_REPEAT, c.MIN_REPEAT):
                parts = [text * max(1, value[0]) for text in self.samples(value[2])] + [""] * (not value[0])
            else:
                parts = [text for part in _inside(op, value) for text in self.samples(part)[:4]] or [""]
            if op in (c.ASSERT, c.ASSERT_NOT):
                parts = [""]
            texts = [text + part for part, text in product(parts[:12], texts[:3])]
        return texts[:12]


def _inside(op, value):
    """Return the sequences of nodes that a node is made of."""
    if op is c.BRANCH:
        return value[1]
    if op in (c.SUBPATTERN, c.ASSERT, c.ASSERT_NOT):
        return [value[-1]]
    return [value[2]] if op in (c.MAX_REPEAT, c.MIN_REPEAT) else []
