"""The words that a checked caption may hold beside the wordings of its record: they state nothing by themselves."""

from __future__ import annotations

import re

_NEUTRAL = """
a an the this that these those it its here there which what where
is are be being was were has have can and of on in with as
but however although also together alongside
show shows showing shown see seen visible present presence demonstrate demonstrates demonstrating demonstrated
reveal reveals revealing revealed display displays displaying displayed depict depicts depicting depicted
contain contains containing include includes including indicate indicates indicating
noted identified found observed detected recognised recognises recognized made out
evidence sign signs finding findings feature features appearance appearances consistent keeping
image images picture pictures examination study case view patient
reading read follows answer gives
"""
NEUTRAL = frozenset(_NEUTRAL.split())
"""Function words and words of reporting. No word that denies, doubts, measures, places or names a thing is among
them."""
REPORTING = ("one recognises", "one sees")
"""In two words, because "one" alone counts."""
PUNCTUATION = frozenset(".,;:!()-–—")
HEDGES = re.compile(
    r"\b(?:lack(?:s|ed|ing)?|(?:un)?likely|doubt\w*|hardly|barely|scarcely|possib\w+|probab\w+|may|might|could|would|should"
    r"|suspect\w*|suspicio\w+|suggest\w*|question\w*|cannot|can't|rul(?:e|es|ed|ing) out|exclud\w+|not only|dismiss\w*"
    r"|resolv\w+|perhaps|maybe|seem\w*|appears?|apparent\w*|presum\w+|differential|versus|vs|rather|instead|almost|if)\b"
    r"|\?"
)
"""What leaves open whether a thing is there, or says that it is not without the plain words for it."""
DENIALS = re.compile(
    r"\b(?:no|not|without|nor|neither|none|never|absent|absence|free|excluded|negative|nothing|never|n't)\b"
)

_THE_LIKE = r"(?:(?:a|an|any|the|evidence|signs?|findings?|features?|indication|of|visible)\s+)*"
_MORE = r"(?:(?:\s*,\s*(?:or\s+|nor\s+)?|\s+or\s+|\s+nor\s+)" + _THE_LIKE + r"N)*"
DENIED = re.compile(
    r"\b(?:no|without|free\s+of|absence\s+of|not(?:\s+(?:show|demonstrate|reveal|display|contain))?)\s+"
    + _THE_LIKE
    + r"N"
    + _MORE
    + r"|N(?:(?:\s*,\s*|\s+and\s+|\s+or\s+)(?:(?:a|an|the)\s+)?N)*\s+(?:is|are)\s+"
    r"(?:absent|not\s+(?:seen|present|visible|identified|detected|found|observed|demonstrated))\b"
)
"""Every form in which N (a thing that the record denies) may be denied; the forms stand in clauses of their own."""
TURN = re.compile(r"\b(?:but|however|although|with|showing|demonstrating|revealing)\b")
"""Words behind which a denial no longer reaches."""
