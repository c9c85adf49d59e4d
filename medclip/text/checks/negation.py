"""Whether a report denies what it mentions: words that deny before and after a mention, and how far they reach.

After NegEx (Chapman et al., J. Biomed. Inform. 34, 2001) and ConText (Harkema et al., J. Biomed. Inform. 42, 2009):
triggers before and after, phrases that only look like one ("no change in the effusion"), and words that end a scope.
Their window of five words is not used: in reports a denial reaches to the end of its list ("No displaced rib fracture,
pneumothorax, or large pleural effusion."), which is longer.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

_DENIES_BEFORE = re.compile(
    r"\b(no|not|without|nor|neither|never|absence of|free of|clear of|negative for|rather than|instead of|excludes?"
    r"|ruled? out|(?<!has )(?<!have )(?<!had )(?<!been )(?<!is )(?<!are )(?<!was )(?<!were )resolved|resolution of"
    r"|lacks?|lacking|lack of|hardly|scarcely|unlikely|doubtful|dismiss(?:es|ed))\b[^.;:]*$"
)
_DENIES_AFTER = re.compile(
    r"^[^.;:,?]{0,40}\b(absent|(?:not|no longer|cannot|can't|couldn't) (?:(?:currently|now|definitely|be) )*"
    r"(?:seen|present|visible|visuali[sz]ed|identified|detected|found|observed|evident|demonstrated|made out"
    r"|appreciated|noted|apparent|recogni[sz]ed)|ruled out|excluded|unlikely|doubtful|lacking|dismissed"
    r"|(?:has|have|had|is|are|was|were) (?:(?:now|since|been|\w+ly) )*(?:resolved|cleared|disappeared|gone))\b"
    r"|^ (?:\w+ly )?resolved\b|^ (?:(?:is|are|was|were) )?negative\b(?! for)"
    # An answer: "pneumothorax: none", "pneumothorax (-)", "is there a pneumothorax? no".
    r"|^(?:[^.;:,?\n]{0,20}[:=(] *\(?|[^.;:?\n]*\?| [-–—](?= )|(?= (?:none|no|nil)\b)) *(?:[-–—] )?"
    r"(?:(?:none|no|nil|not)(?: (?:seen|present|visible|identified|detected|found|noted|evident|evidence))?|absent|neg"
    r"|negative|0|(?<=[(:=] )[-–−]|(?<=[(:=])[-–−])(?= *(?:[.,;)]? *$|[.,;)] |[,;)\n]))"
)
_CHANGE = (
    r"(?:(?:definite|significant|interval|appreciable|substantial|major|obvious|real|suspicious|large|clear|evident"
    r"|apparent|overall|evidence of|evidence for) )*"
    r"(?:change|interval changes|increase|decrease|progression|worsening|improvement|difference)(?! or\b)"
)
_DENIES_NOTHING = re.compile(
    r"\b(?:no doubt|without (?:any )?doubt|not only|no shortage of|no further|with (?:or|and) without"
    rf"|(?:no|without) {_CHANGE}|without (?:\w+ ){{0,2}}(?:difficulty|contrast)"
    r"|not (?:\w+ly |yet )?(?:changed|increased|decreased|progressed|worsened|improved|resolved|cleared|certain"
    r"|necessarily|excluded|ruled out)"
    r"|(?:cannot|can't|can not|could not)(?: \w+){0,2} (?:excluded|ruled out|exclude|rule out)"
    r"|(?:to|must|should) (?:\w+ly )?(?:be )?(?:exclude|rule out|excluded|ruled out)"
    r"|(?:nearly|almost|partially|partly|mostly|largely|incompletely) (?:\w+ly )?(?:resolved|cleared))\b"
)
"""Where the word of a denial stands in what is none (pseudo-negations): what has not changed is there."""
_AWAITED = re.compile(r"\b(?:until|once|when|if|unless)\b[^,]{0,30}$")
"""What follows has yet to happen: "until the effusion has resolved"."""
_ASKS = (
    r"(?:history of|h/o|hx of|evaluate|evaluation for|assess|assessment for|r/o|query|question of"
    r"|(?:to|must|should|please) (?:rule out|exclude)|(?:look|looking|search|screen|screening) for)"
)
_ASKS_AFTER = re.compile(r"\?(?!\w)")
_ASKS_FIRST = r"(?:rule out|exclude|(?:is|are|was|were|does|has) (?:there|any))"
_ASKS_BEFORE = re.compile(rf"\b{_ASKS}\b[^.;:]*$|^\W*{_ASKS_FIRST}\b[^.;:]*$|\? ?$")
"""Words of an order, of a history and of a question: what they speak of may be there or not."""
_TURNS = re.compile(
    r"\b(?:but|however|although|though|nevertheless|except|other than|apart from|aside from|with|suggesting|indicating"
    r"|there (?:is|are|was|were))\b|, (?:stable|unchanged|persistent|persisting)\b"
)
"""Words after which an earlier "no" no longer reaches."""


def denied(before: str, after: str) -> bool:
    """Return whether a mention is denied.

    Args:
        before: Start of the sentence up to the mention, in lower case.
        after: Rest of the sentence behind the mention, in lower case.

    Example:
        >>> denied("no focal consolidation, ", " or pneumothorax"), denied("no doubt an ", "")
        (True, False)
    """
    before = _TURNS.split(_DENIES_NOTHING.sub(" ", before))[-1]
    if _DENIES_BEFORE.search(before):
        return True
    return not _AWAITED.search(before) and bool(_DENIES_AFTER.search(_DENIES_NOTHING.sub(" ", after)))


def asked(before: str, after: str) -> bool:
    """Return whether a mention says nothing of the image, as in a question, in an order or in a history.

    Args:
        before: Start of the sentence up to the mention, in lower case.
        after: Rest of the sentence behind the mention, in lower case.

    Example:
        >>> asked("history of ", ""), asked("evaluate for a ", ""), asked("", " present?"), asked("small ", "")
        (True, True, True, False)
    """
    return bool(_ASKS_AFTER.search(after) or _ASKS_BEFORE.search(_TURNS.split(before)[-1]))


_TRIGGER = re.compile(
    r"\b(?:no|none|nil|not|cannot|can't|couldn't|without|nor|neither|never|absence|absent|free|clear|neg|negative|rather"
    r"|instead|excluded?|excludes"
    r"|ruled?|resolved|resolution|cleared|disappeared|gone|lacks?|lacking|hardly|scarcely|unlikely|doubtful"
    r"|dismiss(?:es|ed))\b|[:=(] *[-–−0]"
)
"""What is in every text that denies something: most captions have nothing of it, and are passed over."""
_END = re.compile(r"[?!;:\n]|\.(?!(?<=\d\.)\d)(?!(?<=\d \.) \d)")
"""End of a sentence or clause; a decimal point, with or without blanks around it, is none."""


def denied_spans(text: str, spans: Sequence[tuple[int, int]]) -> list[bool]:
    """Return of each mention whether its text denies it: no denial reaches into another sentence or line.

    Args:
        text: Text of any number of sentences, in lower case.
        spans: Begin and end of each mention.

    Example:
        >>> text = "no effusion. nodule of 1.5 cm"
        >>> denied_spans(text, [(3, 11), (13, 19)])
        [True, False]
    """
    if not _TRIGGER.search(text):
        return [False] * len(spans)
    ends = [match.start() for match in _END.finditer(text)]
    answers = []
    for start, end in spans:
        last, following = bisect_right(ends, start - 1) - 1, bisect_left(ends, end)
        before = text[ends[last] + 1 if last >= 0 else 0 : start]
        if following < len(ends) and text[ends[following]] in ":?":
            following += 1  # to its answer
        after = text[end : ends[following] if following < len(ends) else len(text)]
        # What points are left are those of decimals, and end nothing.
        answers.append(denied(before.replace(".", " "), after.replace(".", " ")))
    return answers
